"""Three ways to keep a matrix in the graph and to multiply with it. All treat each token by itself, so that a text has
the same vector alone and in any batch."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto

from zhiyin_offline.bilingual.bert_weights import Linear
from zhiyin_offline.bilingual.graph_writer import MICROSOFT, GraphWriter
from zhiyin_offline.bilingual.packed_model import BLOCK, Q4Matrix

# Activations may be rounded to 8 bits, a scale for each block: 1.1 to 1.7 times as fast, cosine .9999.
_INT8_ACTIVATIONS = 4


class WeightFormat(Protocol):
    """How matrices are stored and used."""

    def linear(self, graph: GraphWriter, value: str, layer: Linear, name: str) -> str:
        """Adds y = x · weightᵀ + bias for [texts, tokens, inputs] and returns the name of y."""
        ...

    def look_up(self, graph: GraphWriter, ids: str, table: Q4Matrix, name: str) -> str:
        """Adds the rows of a table for [texts, tokens] ids and returns their name."""
        ...


class Float32:
    """Plain matrices: the reference, and for runtimes without the operators of the other two."""

    def linear(self, graph: GraphWriter, value: str, layer: Linear, name: str) -> str:
        """See `WeightFormat.linear`."""
        weight = graph.constant(f"{name}.weight", layer.weight.dequantized().T)
        product = graph.node("MatMul", [value, weight], f"{name}.product")
        return graph.node("Add", [product, graph.constant(f"{name}.bias", layer.bias)], name)

    def look_up(self, graph: GraphWriter, ids: str, table: Q4Matrix, name: str) -> str:
        """See `WeightFormat.look_up`."""
        return graph.node("Gather", [graph.constant(f"{name}.table", table.dequantized()), ids], name)


class _FourBitTable:
    def look_up(self, graph: GraphWriter, ids: str, table: Q4Matrix, name: str) -> str:
        """Dequantises only the rows that are asked for, to exactly the file's values. See `WeightFormat.look_up`."""
        codes = graph.packed_uint4(f"{name}.table", _pairs(table.nibbles), table.nibbles.shape)
        scales = graph.constant(f"{name}.scales", table.scales)
        # Unsigned four-bit data has zero point 0 unless one is given.
        eights = np.full((table.scales.size + 1) // 2, 0x88, np.uint8)
        zeros = graph.packed_uint4(f"{name}.zeros", eights, table.scales.shape)
        return graph.node(
            "GatherBlockQuantized",
            [codes, ids, scales, zeros],
            name,
            MICROSOFT,
            gather_axis=0,
            quantize_axis=1,
            block_size=BLOCK,
        )


class FourBitBlocks(_FourBitTable):
    """The file's own blocks: no second loss of weights, the smallest graph, right on every CPU."""

    def linear(self, graph: GraphWriter, value: str, layer: Linear, name: str) -> str:
        """See `WeightFormat.linear`."""
        outputs, inputs = layer.weight.nibbles.shape
        blocks = _pairs(layer.weight.nibbles).reshape(outputs, inputs // BLOCK, BLOCK // 2)
        constants = [
            graph.constant(f"{name}.weight", blocks),
            graph.constant(f"{name}.scales", layer.weight.scales),
            "",  # zero point: 8 when absent
            "",
            graph.constant(f"{name}.bias", layer.bias),
        ]
        return graph.node(
            "MatMulNBits",
            [value, *constants],
            name,
            MICROSOFT,
            K=inputs,
            N=outputs,
            bits=4,
            block_size=BLOCK,
            accuracy_level=_INT8_ACTIVATIONS,
        )


class Int8Rows(_FourBitTable):
    """Integer products: weights with a scale for each output, activations with a scale for each token.

    The usual dynamic quantisation takes one scale for a whole batch, and a text's vector then depends on its
    neighbours. Products of unsigned by signed bytes are fast and exact where the CPU adds them up in 32 bits (VNNI);
    older x86 adds pairs in 16 bits, which saturate.
    """

    def linear(self, graph: GraphWriter, value: str, layer: Linear, name: str) -> str:
        """See `WeightFormat.linear`."""
        weights = layer.weight.dequantized()
        if layer.loudness is not None:
            # Exact, being powers of two: what the input loses, the weights gain.
            quieter = graph.constant(f"{name}.quieter", 1 / layer.loudness)
            value = graph.node("Mul", [value, quieter], f"{name}.damped")
            weights *= layer.loudness
        weight_scales = np.maximum(np.abs(weights).max(axis=1) / 127, 1e-12).astype(np.float32)
        codes = np.rint(weights / weight_scales[:, None]).astype(np.int8)

        magnitude = graph.node("Abs", [value], f"{name}.magnitude")
        largest = graph.node("ReduceMax", [magnitude, _last_axis(graph)], f"{name}.largest", keepdims=1)
        largest = graph.node("Max", [largest, _scalar(graph, "tiny", 1e-9)], f"{name}.largest_or_tiny")
        inverse = graph.node("Div", [_scalar(graph, "127", 127), largest], f"{name}.inverse_scale")
        scaled = graph.node("Mul", [value, inverse], f"{name}.scaled")
        # The cast cuts off decimals of what is positive here: adding a half makes it round.
        shifted = graph.node("Add", [scaled, _scalar(graph, "128.5", 128.5)], f"{name}.shifted")
        quantized = graph.node("Cast", [shifted], f"{name}.quantized", to=TensorProto.UINT8)

        zero_point = graph.constant("zero_point_128", np.uint8(128))
        operands = [quantized, graph.constant(f"{name}.weight", codes.T), zero_point]
        product = graph.node("MatMulInteger", operands, f"{name}.integers")
        product = graph.node("Cast", [product], f"{name}.floats", to=TensorProto.FLOAT)
        scale = graph.node("Mul", [largest, _scalar(graph, "1/127", 1 / 127)], f"{name}.token_scale")
        product = graph.node("Mul", [product, scale], f"{name}.by_token")
        product = graph.node("Mul", [product, graph.constant(f"{name}.scales", weight_scales)], f"{name}.by_output")
        return graph.node("Add", [product, graph.constant(f"{name}.bias", layer.bias)], name)


def _pairs(nibbles: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Neighbours in one byte, the first in the low half, as ONNX has them."""
    return (nibbles[..., 0::2] | (nibbles[..., 1::2] << 4)).astype(np.uint8)


def _scalar(graph: GraphWriter, name: str, value: float) -> str:
    return graph.constant(f"scalar_{name}", np.float32(value))


def _last_axis(graph: GraphWriter) -> str:
    return graph.constant("last_axis", np.array([-1]))
