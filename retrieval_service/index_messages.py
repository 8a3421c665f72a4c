"""What the service and its index say to each other, in item numbers."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from retrieval_service.named_spaces import SEMANTIC, SEMANTIC_VERSION, IndexKey
from retrieval_service.search_plan import Plan
from retrieval_service.snapshot import SnapshotInfo


@dataclass(frozen=True, slots=True)
class IndexChange:
    """A committed write as one index sees it.

    Attributes:
        catalog_id: The catalogue.
        sequence: Of the write.
        numbers: Items with a new vector.
        vectors: Raw, shape (n, dimensions).
        deleted: Items that are gone.
        recentered: Whether the write renewed the mean of the space.
        space: The space.
        version: Of the space.
    """

    catalog_id: int
    sequence: int
    numbers: NDArray[np.int64]
    vectors: NDArray[np.float32]
    deleted: NDArray[np.int64]
    recentered: bool = False
    space: str = SEMANTIC
    version: int = SEMANTIC_VERSION

    @property
    def key(self) -> IndexKey:
        """Of the index."""
        return IndexKey(self.catalog_id, self.space, self.version)


@dataclass(frozen=True, slots=True)
class HostQuery:
    """One query for the worker; `vector` raw, `examples` as item numbers and weights, `allowed` None: all."""

    limit: int
    vector: NDArray[np.float32] | None
    examples: Sequence[tuple[int, float]]
    allowed: BitMap | None
    denied: Sequence[int]
    exact: bool


@dataclass(frozen=True, slots=True)
class HostHits:
    """Item numbers and scores, best first, with ties of the last; `vector` as the space compares it."""

    numbers: list[int]
    scores: list[float]
    plan: Plan
    vector: NDArray[np.float32]


@dataclass(slots=True)
class IndexFigures:
    """What is known of one index; as of the last write or look."""

    sequence: int = 0
    live: int = 0
    tombstones: int = 0
    epoch: int = 0
    has_graph: bool = False
    graph_backlog: int = 0
    snapshot: SnapshotInfo | None = None
    changed_since_snapshot: int = 0
    snapshot_tried_at: float = field(default_factory=time.monotonic)

    def take(self, reply: Mapping[str, Any]) -> None:
        """Notes what the worker said."""
        self.sequence, self.live, self.tombstones = reply["sequence"], reply["live"], reply["tombstones"]
        self.epoch, self.has_graph = reply["epoch"], reply["has_graph"]
        self.graph_backlog = reply["graph_backlog"]


def search_frame(queries: Sequence[HostQuery]) -> tuple[list[dict[str, Any]], list[NDArray[Any]]]:
    """Queries for the worker: headers, and the arrays they point into (all vectors as one, then each filter once)."""
    filters: dict[int, int] = {}
    blobs: list[NDArray[Any]] = []
    vectors: list[NDArray[np.float32]] = []
    headers: list[dict[str, Any]] = []
    for query in queries:
        position = -1
        if query.allowed is not None:
            position = filters.setdefault(id(query.allowed), len(blobs))
            if position == len(blobs):
                blobs.append(np.frombuffer(query.allowed.serialize(), dtype=np.uint8))
        headers.append(
            {
                "limit": query.limit,
                "vector": len(vectors) if query.vector is not None else -1,
                "examples": list(query.examples),
                "filter": position,
                "denied": list(query.denied),
                "exact": query.exact,
            }
        )
        if query.vector is not None:
            vectors.append(query.vector)
    return headers, [np.stack(vectors) if vectors else np.empty((0, 0), dtype=np.float32), *blobs]


def search_answer(reply: Mapping[str, Any], arrays: Sequence[NDArray[Any]]) -> tuple[list[HostHits], int]:
    """The worker's answer: hits of each query, and the sequence of the state they are of."""
    numbers, scores, transformed = arrays
    hits, start = [], 0
    for count, plan, vector in zip(reply["counts"], reply["plans"], transformed, strict=True):
        end = start + count
        hits.append(HostHits(numbers[start:end].tolist(), scores[start:end].tolist(), Plan(plan), vector))
        start = end
    return hits, reply["sequence"]
