"""PyTorch to an optimised ONNX graph. The recipe and its figures: docs/decisions, the encoder export."""

from __future__ import annotations

import contextlib
import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from encoder_service.model_directory import Precision
from encoder_service.onnx_backend import INPUT_NAMES, OUTPUT_NAME
from zhiyin_offline.export.pooled_model import PooledModel

_OPSET = 17
# Pooling and normalisation stay in fp32 in an fp16 graph: sums over tokens overflow and lengths drift from 1.
_FP32_OPERATORS = ("ReduceSum", "ReduceL2", "ReduceMax", "Clip", "Div", "Expand")


def write_graph(model: PooledModel, config: Mapping[str, Any], path: Path, precision: Precision) -> None:
    """Exports, fuses and saves the graph.

    Args:
        model: In evaluation mode, with eager attention.
        config: config.json of the checkpoint, for the number of heads.
        path: The file to write.
        precision: fp32 is laid out for the CPU; fp16 is fused further, for a GPU, and has fp32 outputs.
    """
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        raw = Path(scratch) / "raw.onnx"
        _export(model, raw, int(config["vocab_size"]))
        with _quiet("onnxruntime.transformers", "fusion_base", "onnx_model", "float16"):
            _optimize(raw, path, config, precision)


def _export(model: PooledModel, path: Path, vocabulary: int) -> None:
    # Two rows of different length and no round number, so that no dimension can be taken for a constant.
    input_ids = (torch.arange(14) % vocabulary).reshape(2, 7)
    attention_mask = torch.ones_like(input_ids)
    attention_mask[1, 4:] = 0
    axes = {0: "texts", 1: "tokens"}
    with warnings.catch_warnings():
        # The successor of this exporter gives graphs that the optimizer fuses less and that run slower on the CPU.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            model,
            (input_ids, attention_mask),
            str(path),
            input_names=list(INPUT_NAMES),
            output_names=[OUTPUT_NAME],
            dynamic_axes={**dict.fromkeys(INPUT_NAMES, axes), OUTPUT_NAME: {0: "texts"}},
            opset_version=_OPSET,
            dynamo=False,
        )


def _optimize(raw: Path, path: Path, config: Mapping[str, Any], precision: Precision) -> None:
    from onnxruntime.transformers import optimizer
    from onnxruntime.transformers.float16 import DEFAULT_OP_BLOCK_LIST
    from onnxruntime.transformers.fusion_options import FusionOptions

    options = FusionOptions("bert")
    if precision == "fp32":
        # The fused operators are slower than what they replace on the CPU in ONNX Runtime 1.32.
        options.enable_skip_layer_norm = False
        options.enable_bias_skip_layer_norm = False
        options.enable_embed_layer_norm = False
    fused = optimizer.optimize_model(
        str(raw),
        "bert",
        num_heads=int(config["num_attention_heads"]),
        hidden_size=int(config["hidden_size"]),
        optimization_options=options,
        opt_level=0,
    )
    if precision == "fp16":
        # The symbolic shape inference inside knows the fused operators, so that every cast is placed.
        fused.convert_float_to_float16(keep_io_types=True, op_block_list=[*DEFAULT_OP_BLOCK_LIST, *_FP32_OPERATORS])
    fused.save_model_to_file(str(path))


@contextlib.contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Silences the informational logs of the optimizer."""
    loggers = [logging.getLogger(name) for name in names]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)
