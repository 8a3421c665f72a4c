"""The graph index: hnswlib. The only file that imports it.

hnswlib is silent where it should speak: saving into a missing folder succeeds, a damaged file loads, and `ef` is
forgotten by a load. What can be checked is checked here, the rest by the snapshot's manifest.
"""

from __future__ import annotations

from pathlib import Path

import hnswlib
import numpy as np
from numpy.typing import NDArray

from retrieval_service.vector_index import Labels, Vectors
from service_runtime.durable_files import sync

# Recall and speed at 100k and 500k vectors are in docs/retrieval.md. 200 instead of 100 when searching: at 100 a few
# queries into dense clusters found nothing at all.
_LINKS, _EF_CONSTRUCTION, _EF_SEARCH = 16, 200, 200


class GraphTooSparseError(Exception):
    """The graph could not reach as many vectors as were asked for; compare exactly instead."""


class HnswIndex:
    """A hierarchical navigable small world graph (Malkov and Yashunin, 2016) over inner products.

    Not safe for `add`, `remove` or `save` beside anything else. `save`, `load` and dropping a large graph hold the GIL
    for up to seconds: never do them in a process that is serving.
    """

    def __init__(self, dimensions: int, capacity: int = 1024) -> None:
        self.dimensions = dimensions
        self._index = hnswlib.Index("ip", dimensions)
        self._index.init_index(max(capacity, 16), M=_LINKS, ef_construction=_EF_CONSTRUCTION, random_seed=7)
        self._index.set_ef(_EF_SEARCH)
        self._removed = 0

    @classmethod
    def load(cls, path: Path, dimensions: int, removed: int) -> HnswIndex:
        """Reads a file that `save` wrote.

        Args:
            path: The file.
            dimensions: Of its vectors.
            removed: How many of its vectors are removed; the file knows, hnswlib does not say.

        Raises:
            RuntimeError: hnswlib saw that the file is no index.
        """
        graph = cls.__new__(cls)
        graph.dimensions = dimensions
        graph._index = hnswlib.Index("ip", dimensions)
        graph._index.load_index(str(path))
        graph._index.set_ef(_EF_SEARCH)
        graph._removed = removed
        return graph

    def __len__(self) -> int:
        return int(self._index.element_count) - self._removed

    @property
    def removed(self) -> int:
        """Vectors that are still in the graph and cannot be found."""
        return self._removed

    def add(self, labels: Labels, vectors: Vectors) -> None:
        """Inserts vectors, about 0.4 ms of one core each."""
        needed = int(self._index.element_count) + len(labels)
        capacity = int(self._index.max_elements)
        if needed > capacity:
            self._index.resize_index(max(needed, capacity + max(1024, capacity // 4)))
        self._index.add_items(vectors, labels, num_threads=1)

    def remove(self, labels: Labels) -> None:
        """Marks vectors as removed; they stay in the graph as waypoints."""
        for label in labels.tolist():
            self._index.mark_deleted(label)
        self._removed += len(labels)

    def search(self, query: NDArray[np.float32], limit: int) -> Labels:
        """The labels of about the `limit` best vectors.

        Raises:
            GraphTooSparseError: Fewer were reachable.
        """
        limit = min(limit, len(self))
        if limit == 0:
            return np.empty(0, dtype=np.int64)
        try:
            labels, _ = self._index.knn_query(query[None, :], k=limit, num_threads=1)
        except RuntimeError as error:
            raise GraphTooSparseError(str(error)) from None
        return labels[0].astype(np.int64)  # type: ignore[no-any-return]

    def save(self, path: Path) -> None:
        """Writes the graph and makes sure that all of it is on the disk.

        Raises:
            OSError: The file is missing or short, for example because the disk is full.
        """
        self._index.save_index(str(path))
        expected = int(self._index.index_file_size())
        actual = path.stat().st_size
        if actual != expected:
            raise OSError(f"{path.name} has {actual} bytes instead of {expected}: the disk may be full")
        sync(path)
