"""BERT with mean pooling and normalisation as an ONNX graph, straight from the weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import TensorProto

from encoder_service.onnx_backend import INPUT_NAMES, OUTPUT_NAME
from zhiyin_offline.bilingual.bert_weights import LAYER_NORM_EPSILON, BertWeights, Layer, Norm
from zhiyin_offline.bilingual.graph_writer import MICROSOFT, GraphWriter
from zhiyin_offline.bilingual.weight_formats import WeightFormat


def write_bert_graph(weights: BertWeights, weight_format: WeightFormat, path: Path) -> None:
    """Writes the graph: ids and mask, [texts, tokens] int64, to vectors of length 1, [texts, hidden] float32."""
    graph = GraphWriter()
    token_ids, mask = INPUT_NAMES
    attention_mask = graph.node("Cast", [mask], "mask_int32", to=TensorProto.INT32)
    value = _embed(graph, token_ids, weights, weight_format)
    for number, layer in enumerate(weights.layers):
        value = _layer(graph, value, attention_mask, layer, weights.heads, weight_format, f"layer{number}")
    _pool(graph, value, mask)
    graph.save(path, INPUT_NAMES, OUTPUT_NAME, weights.positions.shape[1])


def _embed(graph: GraphWriter, token_ids: str, weights: BertWeights, weight_format: WeightFormat) -> str:
    words = weight_format.look_up(graph, token_ids, weights.words, "words")
    length = graph.node("Shape", [token_ids], "length", start=1, end=2)
    table = graph.constant("positions.table", weights.positions)
    zero = graph.constant("first_axis", np.array([0]))
    positions = graph.node("Slice", [table, zero, length, zero], "positions")
    return _norm(graph, graph.node("Add", [words, positions], "embedded"), weights.embedding_norm, "embedding_norm")


def _layer(
    graph: GraphWriter, value: str, mask: str, layer: Layer, heads: int, weight_format: WeightFormat, name: str
) -> str:
    projected = weight_format.linear(graph, value, layer.query_key_value, f"{name}.query_key_value")
    parts = [f"{name}.{part}" for part in ("query", "key", "value")]
    graph.split(projected, parts)
    attended = graph.node("MultiHeadAttention", [*parts, "", mask], f"{name}.attended", MICROSOFT, num_heads=heads)
    attended = weight_format.linear(graph, attended, layer.attention_output, f"{name}.attention_output")
    value = _norm(
        graph,
        graph.node("Add", [attended, value], f"{name}.attention_sum"),
        layer.attention_norm,
        f"{name}.attention_norm",
    )
    wide = weight_format.linear(graph, value, layer.expand, f"{name}.expand")
    wide = graph.node("Gelu", [wide], f"{name}.gelu", MICROSOFT)
    narrow = weight_format.linear(graph, wide, layer.contract, f"{name}.contract")
    return _norm(
        graph, graph.node("Add", [narrow, value], f"{name}.output_sum"), layer.output_norm, f"{name}.output_norm"
    )


def _norm(graph: GraphWriter, value: str, norm: Norm, name: str) -> str:
    constants = [graph.constant(f"{name}.scale", norm.scale), graph.constant(f"{name}.shift", norm.shift)]
    return graph.node("LayerNormalization", [value, *constants], name, axis=-1, epsilon=LAYER_NORM_EPSILON)


def _pool(graph: GraphWriter, value: str, mask: str) -> None:
    """The direction of the mean is that of the sum over a text's tokens: one product with the mask."""
    axis = graph.constant("second_axis", np.array([1]))
    row = graph.node("Unsqueeze", [graph.node("Cast", [mask], "mask_float", to=TensorProto.FLOAT), axis], "mask_row")
    total = graph.node("Squeeze", [graph.node("MatMul", [row, value], "totals"), axis], "total")
    graph.node("LpNormalization", [total], OUTPUT_NAME, axis=-1, p=2)
