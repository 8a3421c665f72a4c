"""Search with numpy: queries in, hits with their scores and vectors out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from zhiyin.common.v1 import filter_pb2, item_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin_client.vectors import FloatMatrix, from_matrix, to_embedding


@dataclass(frozen=True)
class Query:
    """One query: exactly one of `vector`, `text` and `like` is given."""

    vector: ArrayLike | None = None
    """Shape (dimensions,), such as a row of what `embed` gives; the server does the centring."""
    text: str = ""
    """Encoded by the server as a query."""
    like: Mapping[str, float] | Sequence[str] = ()
    """Ids of items to be like; with weights: negative ones push away."""
    name: str = ""
    """Echoed in the hits. Empty: `q0`, `q1`, ... by its place."""
    limit: int = 0
    """Hits wanted, 1 to 1,000; 0: 10."""
    space: str = ""
    """The vector space. Empty: `semantic`."""
    space_version: int = 0
    """0: the published one."""
    space_fingerprint: str = ""
    """Of the model that `vector` came from; the server then refuses it where another one serves."""
    filter: filter_pb2.Filter | None = None
    """Only items that match."""
    exact: bool = False
    """Compare with every item instead of using the graph index."""

    def message(self, place: int) -> retrieval.SearchQuery:
        """The query on the wire. Raises ValueError unless exactly one input is given."""
        if sum((self.vector is not None, bool(self.text), bool(self.like))) != 1:
            raise ValueError("a query has exactly one of vector, text and like")
        message = retrieval.SearchQuery(
            name=self.name or f"q{place}",
            vector=None if self.vector is None else to_embedding(self.vector, self.space_fingerprint),
            examples=_examples(self.like) if self.like else None,
            limit=self.limit,
            space=self.space,
            space_version=self.space_version,
            filter=self.filter,
            exact=self.exact,
        )
        if self.text:
            message.text = self.text
        return message


Queries = str | ArrayLike | Query | Sequence[str | Query]
"""A text, a vector, a matrix of vectors (a query a row), or several texts and queries with all their settings."""


@dataclass(frozen=True)
class Hits:
    """What one query found, best first."""

    name: str
    items: list[item_pb2.Item]
    """Filled as `read_mask` says; always with their ids."""
    scores: NDArray[np.float32]
    """Similarities, shape (hits,), higher is better."""
    rows: NDArray[np.intp]
    """Where the hits stand in `SearchResult.items` and `item_vectors`, shape (hits,)."""

    @property
    def ids(self) -> list[str]:
        """Ids of the items."""
        return [item.id for item in self.items]


@dataclass(frozen=True)
class SearchResult:
    """What all queries found over one state of the catalogue."""

    hits: list[Hits]
    """One entry a query, in the order of the request."""
    items: list[item_pb2.Item]
    """Every item that is a hit of any query, once."""
    item_vectors: FloatMatrix | None
    """Rows as `items`, as the space compares them (centred, normalised). None: not asked for, or an empty space."""
    query_vectors: FloatMatrix | None
    """Rows as `hits`; a zero row where a query has none."""
    sequence: int
    """The sequence number of the state that answered."""
    message: retrieval.SearchResponse
    """Everything else that the answer says."""


def queries_of(queries: Queries, limit: int) -> list[retrieval.SearchQuery]:
    """The queries on the wire; `limit` counts where a query has none of its own. Raises ValueError."""
    messages = [query.message(place) for place, query in enumerate(_as_list(queries))]
    for message in messages:
        message.limit = message.limit or limit
    return messages


def result_of(response: retrieval.SearchResponse) -> SearchResult:
    """Reads an answer."""
    items = list(response.items)
    hits = []
    for found in response.results:
        rows = np.array(found.item_indices, dtype=np.intp)
        scores = np.array(found.scores, dtype=np.float32)
        hits.append(Hits(found.name, [items[row] for row in rows], scores, rows))
    return SearchResult(
        hits=hits,
        items=items,
        item_vectors=from_matrix(response.item_vectors) if response.HasField("item_vectors") else None,
        query_vectors=from_matrix(response.query_vectors) if response.HasField("query_vectors") else None,
        sequence=response.sequence,
        message=response,
    )


def _as_list(queries: Queries) -> list[Query]:
    several = [queries] if isinstance(queries, (str, Query)) else queries
    if isinstance(several, Sequence) and several and all(isinstance(query, (str, Query)) for query in several):
        return [Query(text=query) if isinstance(query, str) else query for query in several]
    array = np.asarray(queries)
    if array.dtype.kind not in "fiu":
        raise ValueError("queries are texts, Query objects, or numbers of shape (dimensions,) or (queries, dimensions)")
    return [Query(vector=row) for row in np.atleast_2d(array)]


def _examples(like: Mapping[str, float] | Sequence[str]) -> retrieval.Examples:
    weights = like if isinstance(like, Mapping) else dict.fromkeys(like, 1.0)
    return retrieval.Examples(
        items=[retrieval.WeightedItem(item_id=item_id, weight=weight) for item_id, weight in weights.items()]
    )
