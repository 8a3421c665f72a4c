"""Collects the nodes and constants of an ONNX graph. No torch."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

MICROSOFT = "com.microsoft"
"""Operators that ONNX Runtime adds to the standard."""
# What ONNX Runtime 1.22, the oldest that this project allows, reads.
_OPSET, _IR_VERSION = 21, 10


class GraphWriter:
    """A graph in the making. Values are known by name."""

    def __init__(self) -> None:
        self._nodes: list[Any] = []
        self._constants: dict[str, Any] = {}

    def constant(self, name: str, value: NDArray[Any] | np.generic) -> str:
        """Adds a constant, once for each name, and returns the name."""
        if name not in self._constants:
            self._constants[name] = numpy_helper.from_array(np.ascontiguousarray(value).reshape(value.shape), name)
        return name

    def packed_uint4(self, name: str, packed: NDArray[np.uint8], shape: Sequence[int]) -> str:
        """Adds a constant of four-bit integers, two a byte, the first in the low half."""
        tensor = TensorProto(name=name, data_type=TensorProto.UINT4, dims=shape, raw_data=packed.tobytes())
        self._constants[name] = tensor
        return name

    def node(self, operator: str, inputs: Sequence[str], output: str, domain: str = "", **attributes: Any) -> str:
        """Adds a node with one output and returns the output's name."""
        self._nodes.append(helper.make_node(operator, list(inputs), [output], domain=domain, **attributes))
        return output

    def split(self, value: str, outputs: Sequence[str]) -> None:
        """Cuts the last axis into equal parts."""
        node = helper.make_node("Split", [value], list(outputs), axis=-1, num_outputs=len(outputs))
        self._nodes.append(node)

    def save(self, path: Path, inputs: Sequence[str], output: str, dimensions: int) -> None:
        """Writes the graph: int64 [texts, tokens] for each input to float32 [texts, dimensions]."""
        graph = helper.make_graph(
            self._nodes,
            "encoder",
            [helper.make_tensor_value_info(name, TensorProto.INT64, ["texts", "tokens"]) for name in inputs],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["texts", dimensions])],
            list(self._constants.values()),
        )
        opsets = [helper.make_opsetid("", _OPSET), helper.make_opsetid(MICROSOFT, 1)]
        onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=_IR_VERSION), str(path))
