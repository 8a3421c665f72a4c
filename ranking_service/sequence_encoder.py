"""The user side of a trained model, run by ONNX Runtime. No PyTorch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
ITEMS, LENGTHS, USER = "items", "lengths", "user"
"""Inputs and output of the graph."""
MAX_LENGTH = "max_length"
"""Metadata of the graph: items of a history that it reads."""


class SequenceEncoder:
    """From the vectors of a user's items to the user's vector. Thread-safe; takes no ids, so that new items count.

    Args:
        graph: An ONNX graph from item vectors and lengths to user vectors, as training exports it.
        threads: Inside one run; more than 1 does not pay for single users.
    """

    def __init__(self, graph: bytes, threads: int = 1) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        self._session: Any = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        self.max_length = int(self._session.get_modelmeta().custom_metadata_map[MAX_LENGTH])
        self.dimensions = int(self._session.get_inputs()[0].shape[2])

    def encode(self, histories: Sequence[Floats]) -> Floats:
        """User vectors, shape (histories, dimensions); a zero row for an empty history.

        Args:
            histories: Vectors of each user's items, oldest first, shape (length, dimensions); only the latest
                `max_length` are read.
        """
        lengths = np.array([min(len(history), self.max_length) for history in histories], np.int64)
        users = np.zeros((len(histories), self.dimensions), np.float32)
        rows = np.flatnonzero(lengths)
        if not len(rows):
            return users
        items = np.zeros((len(rows), int(lengths.max()), self.dimensions), np.float32)
        for padded, row in zip(items, rows.tolist(), strict=True):
            padded[: lengths[row]] = histories[row][-lengths[row] :]
        (users[rows],) = self._session.run([USER], {ITEMS: items, LENGTHS: lengths[rows]})
        return users
