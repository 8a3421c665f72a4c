"""A catalogue in this process that answers ranking as the retrieval service does, exactly and without a wire.

Evaluation and training make tens of thousands of lists. Exact search is what retrieval does itself below the size at
which it uses a graph; a test holds its answers against those of a real service.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval_service.centering import transform, unit
from service_runtime.errors import InvalidRequest, NotFound, Violation
from zhiyin.common.v1.embedding_pb2 import VECTOR_DTYPE_FLOAT16, Embedding, EmbeddingMatrix
from zhiyin.common.v1.filter_pb2 import Filter
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb

SEMANTIC = "semantic"
Floats = NDArray[np.float32]
_PAGE = 1_000
_ATTRIBUTE = "attributes."


@dataclass(frozen=True)
class Space:
    """The vectors of all items in one space, as it compares them.

    Attributes:
        rows: Shape (items, d); a zero row: the item has none.
        version: Of the space.
        fingerprint: What vectors of queries must say.
        mean: Subtracted from queries; None: nothing.
        normalize: Cosine; False: inner product.
        known: Items that have a vector, shape (items,); None: all are compared, zero rows score 0.
    """

    rows: Floats
    version: int
    fingerprint: str
    mean: Floats | None = None
    normalize: bool = True
    known: NDArray[np.bool_] | None = None


def semantic_space(raw: Floats, fingerprint: str) -> Space:
    """The space of text vectors as retrieval makes it of all items at once: unit vectors, centred on their mean."""
    vectors = unit(raw)
    known = np.abs(vectors).max(axis=1) > 0
    mean = vectors[known].mean(axis=0, dtype=np.float64).astype(np.float32) if known.any() else None
    rows = transform(vectors, mean)
    rows[~known] = 0.0
    return Space(rows, 1, fingerprint, mean)


class MemoryCatalog:
    """The `Retrieval` that ranking uses, over items in memory.

    Args:
        items: Of the one catalogue, whatever a request calls it.
        spaces: By name; `semantic` among them.
    """

    def __init__(self, items: Sequence[Item], spaces: Mapping[str, Space]) -> None:
        self._items, self.spaces = items, dict(spaces)
        self._number = {item.id: number for number, item in enumerate(items)}
        self._created = np.array([item.created_at.seconds + item.created_at.nanos / 1e9 for item in items])
        self._shown: dict[tuple[str, ...], list[bytes]] = {}
        self._order_of_ids = np.empty(len(items), np.int64)
        self._order_of_ids[np.argsort([item.id.encode() for item in items])] = np.arange(len(items))

    async def search(self, request: pb.SearchRequest) -> pb.SearchResponse:
        """As in `Retrieval`."""
        return self.answer(request)

    def answer(self, request: pb.SearchRequest) -> pb.SearchResponse:
        """As `search`, for callers without an event loop."""
        allowed = self._allowed(request.filter if request.HasField("filter") else None)
        excluded = [self._number[i] for i in request.exclude_item_ids if i in self._number]
        allowed[excluded] = False
        results, vectors = [], []
        place: dict[int, int] = {}
        hydrated, missing, filtered = self._hydrated(request, allowed)
        for number in hydrated:
            place.setdefault(number, len(place))
        asked = [self._query_vector(query, self._space(query.space or SEMANTIC)) for query in request.queries]
        products = self._products(request.queries, [vector for vector, _ in asked])
        for query, (vector, examples), scored in zip(request.queries, asked, products, strict=True):
            numbers, scores = self._hits(query, allowed, vector, examples, scored)
            for number in numbers:
                place.setdefault(number, len(place))
            vectors.append(vector)
            results.append(
                pb.QueryHits(
                    name=query.name, item_indices=[place[n] for n in numbers], scores=scores, plan=pb.SEARCH_PLAN_EXACT
                )
            )
        shown, entries = np.fromiter(place, np.int64, len(place)), self._entries(request)
        response = pb.SearchResponse.FromString(b"".join([entries[n] for n in place]))
        response.results.extend(results)
        response.hydrated_indices.extend(place[number] for number in hydrated)
        response.missing_item_ids.extend(missing)
        response.filtered_item_ids.extend(filtered)
        for name, space in self.spaces.items():
            response.space_versions[name] = space.version
        if request.vectors_space:
            space = self._space(request.vectors_space)
            dimensions = space.rows.shape[1]
            semantic = [v if len(v) == dimensions else np.zeros(dimensions, np.float32) for v in vectors]
            response.item_vectors.CopyFrom(_matrix(space.rows[shown], space.fingerprint))
            if semantic:
                response.query_vectors.CopyFrom(_matrix(np.stack(semantic), space.fingerprint))
        self._score_all(request, response, vectors, shown)
        return response

    async def get_items(self, catalog: str, item_ids: Sequence[str], fields: Sequence[str]) -> dict[str, Item]:
        """As in `Retrieval`; whole items."""
        return {item_id: self._items[self._number[item_id]] for item_id in item_ids if item_id in self._number}

    async def list_items(
        self, catalog: str, condition: Filter | None, page_token: str, fields: Sequence[str]
    ) -> tuple[Sequence[Item], str]:
        """As in `Retrieval`; whole items."""
        numbers = np.flatnonzero(self._allowed(condition))
        numbers = numbers[np.argsort(self._order_of_ids[numbers])]
        start = int(page_token or 0)
        page = [self._items[number] for number in numbers[start : start + _PAGE].tolist()]
        return page, str(start + _PAGE) if start + _PAGE < len(numbers) else ""

    def _entries(self, request: pb.SearchRequest) -> list[bytes]:
        """Of each item what the request wants to see, as a share of a serialised answer: concatenated they are one."""
        names = tuple(path.removeprefix(_ATTRIBUTE) for path in request.read_mask.paths if path.startswith(_ATTRIBUTE))
        if names not in self._shown:
            shares = [pb.SearchResponse(items=[_without_text(item, names)]) for item in self._items]
            self._shown[names] = [share.SerializeToString() for share in shares]
        return self._shown[names]

    def _hydrated(
        self, request: pb.SearchRequest, allowed: NDArray[np.bool_]
    ) -> tuple[list[int], list[str], list[str]]:
        numbers, missing, filtered = [], [], []
        for item_id in dict.fromkeys(request.hydrate_item_ids):
            number = self._number.get(item_id)
            if number is None:
                missing.append(item_id)
            elif allowed[number]:
                numbers.append(number)
            else:
                filtered.append(item_id)
        return numbers, missing, filtered

    def _products(self, queries: Sequence[pb.SearchQuery], vectors: Sequence[Floats]) -> list[Floats]:
        """Scores of all items for each query; one pass over a space for all of its queries."""
        out: list[Floats] = [np.empty(0, np.float32)] * len(queries)
        by_space: dict[str, list[int]] = {}
        for i, query in enumerate(queries):
            by_space.setdefault(query.space or SEMANTIC, []).append(i)
        for name, members in by_space.items():
            scores = np.stack([vectors[i] for i in members]) @ self._space(name).rows.T
            for i, row in zip(members, scores, strict=True):
                out[i] = row
        return out

    def _hits(
        self,
        query: pb.SearchQuery,
        allowed: NDArray[np.bool_],
        vector: Floats,
        examples: Sequence[int],
        scores: Floats,
    ) -> tuple[list[int], list[float]]:
        if not vector.any():
            return [], []
        passes = allowed.copy()
        if query.HasField("filter"):
            passes &= self._allowed(query.filter)
        passes[examples] = False
        if (known := self._space(query.space or SEMANTIC).known) is not None:
            passes &= known
        kept = np.where(passes, scores, -np.inf)
        limit = min(query.limit or 10, int(np.count_nonzero(passes)))
        if not limit:
            return [], []
        worst = np.partition(kept, len(kept) - limit)[len(kept) - limit]
        found = np.flatnonzero(kept >= worst)
        best = found[np.lexsort((self._order_of_ids[found], -kept[found]))[:limit]]
        return best.tolist(), kept[best].tolist()

    def _query_vector(self, query: pb.SearchQuery, space: Space) -> tuple[Floats, list[int]]:
        if query.WhichOneof("input") == "vector":
            return transform(_row(query.vector)[None], space.mean, normalize=space.normalize)[0], []
        known = [(self._number[e.item_id], e.weight) for e in query.examples.items if e.item_id in self._number]
        numbers = [number for number, _ in known]
        if not numbers:
            return np.zeros(space.rows.shape[1], np.float32), []
        weights = np.array([weight for _, weight in known])
        mixed = weights @ space.rows[numbers].astype(np.float64) / np.abs(weights).sum()
        return transform(mixed.astype(np.float32)[None], None, normalize=space.normalize)[0], numbers

    def _score_all(
        self,
        request: pb.SearchRequest,
        response: pb.SearchResponse,
        vectors: Sequence[Floats],
        shown: NDArray[np.int64],
    ) -> None:
        for query, result, vector in zip(request.queries, response.results, vectors, strict=True):
            if query.score_all:
                space = self._space(query.space or SEMANTIC)
                scores = space.rows[shown] @ vector
                if space.known is not None:
                    scores[~space.known[shown]] = np.nan
                if query.WhichOneof("input") == "examples" and not self._knows_any(query):
                    scores[:] = np.nan
                result.all_scores.extend(scores.tolist())

    def _knows_any(self, query: pb.SearchQuery) -> bool:
        return any(example.item_id in self._number for example in query.examples.items)

    def _space(self, name: str) -> Space:
        if name not in self.spaces:
            raise NotFound("space", name)
        return self.spaces[name]

    def _allowed(self, condition: Filter | None) -> NDArray[np.bool_]:
        if condition is None:
            return np.ones(len(self._items), np.bool_)
        if condition.WhichOneof("condition") != "time_range" or condition.time_range.field != "created_at":
            raise InvalidRequest([Violation("filter", "only a time range of created_at is supported here")])
        start = getattr(condition.time_range, "from")
        return np.asarray(self._created >= start.seconds + start.nanos / 1e9)


def _without_text(item: Item, attributes: Sequence[str]) -> Item:
    """Of attributes only those named."""
    shown = Item()
    shown.CopyFrom(item)
    shown.text = ""
    for name in shown.attributes.keys() - set(attributes):
        del shown.attributes[name]
    return shown


def _row(vector: Embedding) -> Floats:
    return np.frombuffer(vector.data, "<f4").astype(np.float32)


def _matrix(rows: Floats, fingerprint: str) -> EmbeddingMatrix:
    return EmbeddingMatrix(
        data=rows.astype("<f2").tobytes(),
        dtype=VECTOR_DTYPE_FLOAT16,
        rows=len(rows),
        dimensions=rows.shape[1],
        space_fingerprint=fingerprint,
    )
