"""Candidates as columns: one row an item, arrays instead of objects, so that scoring hundreds is cheap."""

from __future__ import annotations

import enum
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from zhiyin.common.v1.item_pb2 import Item

Floats = NDArray[np.float32]
Halves = NDArray[np.float16]
Doubles = NDArray[np.float64]
Ints = NDArray[np.int32]
Flags = NDArray[np.bool_]


class SourceKind(enum.IntEnum):
    """Where a candidate came from; the numbers are those of zhiyin.ranking.v1.SourceKind."""

    QUERY = 1
    PROFILE = 2
    HISTORY = 3
    TRANSITION = 4
    POPULAR = 5
    FRESH = 6
    EXPLORATION = 7
    SEQUENCE = 8
    COLLABORATIVE = 9
    COMMUNITY = 10
    CALLER = 11
    SIMILAR = 12
    CATALOG = 13
    NEIGHBOURS = 14
    FACTORS = 15
    RULE = 16

    @property
    def component(self) -> str:
        """The name that `degraded` uses, such as `source:profile`."""
        return f"source:{self.name.lower()}"


@dataclass(frozen=True, slots=True)
class Provenance:
    """What one source said about the pool.

    Attributes:
        ranks: Place of each candidate among those of the source, from 1; 0: the source did not propose it. Shape (n,).
        scores: The source's own score where it proposed the candidate, else 0; of any magnitude. Shape (n,).
    """

    ranks: Ints
    scores: Doubles

    def take(self, rows: Ints) -> Provenance:
        """Of these rows only, in their order."""
        return Provenance(self.ranks[rows], self.scores[rows])


@dataclass(frozen=True)
class Pool:
    """All candidates of a request, each once.

    Attributes:
        ids: Item ids. Length n.
        items: As retrieval sent them (the few fields that ranking reads). Length n.
        vectors: As the semantic space compares them: centred, of length 1, or a zero row. Shape (n, d).
        compact: The same as FLOAT16, as they came; converting back would cost as much as scoring.
        query_vectors: The vector of each query that has one, by its name. Shape (d,) each.
        provenance: What each source said.
        query_scores: Of queries that score every candidate, by name: shape (n,), NaN where there is no vector.
        labels: Which candidates the filter of a rule matches, by the label's name (`rules.questions.label_of`): shape
            (n,).
    """

    ids: Sequence[str]
    items: Sequence[Item]
    vectors: Floats
    compact: Halves
    query_vectors: Mapping[str, Floats]
    provenance: Mapping[SourceKind, Provenance]
    query_scores: Mapping[str, Floats] = field(default_factory=dict)
    labels: Mapping[str, Flags] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.items)

    @cached_property
    def created(self) -> Doubles:
        """When each item was created, Unix seconds; 0: nobody knows. Shape (n,). Kept: messages are slow to read."""
        return np.fromiter((item.created_at.seconds for item in self.items), dtype=np.float64, count=len(self))

    def take(self, rows: Ints) -> Pool:
        """The pool with only these rows, in their order."""
        return replace(
            self,
            ids=[self.ids[row] for row in rows.tolist()],
            items=[self.items[row] for row in rows.tolist()],
            vectors=self.vectors[rows],
            compact=self.compact[rows],
            provenance={kind: said.take(rows) for kind, said in self.provenance.items()},
            query_scores={name: scores[rows] for name, scores in self.query_scores.items()},
            labels={name: flags[rows] for name, flags in self.labels.items()},
        )

    def similarity(self, query: str) -> Floats | None:
        """Similarity of every candidate to a query, proposed by it or not; None when the query has no vector."""
        vector = self.query_vectors.get(query)
        return None if vector is None or vector.shape[0] != self.vectors.shape[1] else self.vectors @ vector


def best_first(scores: Floats, ids: Sequence[str]) -> Ints:
    """Rows by falling score. Equal scores are in an order that has nothing to do with the ids' own.

    Ids are often numbered as items came in, so ties broken by id would favour old items and leak time into evaluations.
    """
    order = np.argsort(-scores, kind="stable").astype(np.int32)
    if (scores[order[1:]] < scores[order[:-1]]).all():
        return order
    ties = np.fromiter((zlib.crc32(item_id.encode()) for item_id in ids), dtype=np.uint32, count=len(ids))
    return np.lexsort((ties, -scores)).astype(np.int32)
