"""Everything the sources want from the catalogue as one Search."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

from google.protobuf.field_mask_pb2 import FieldMask

from ranking_service.candidate import SourceKind
from ranking_service.query import Query
from ranking_service.sources.source import Ask, Plan
from ranking_service.vector_cache import TextVector
from zhiyin.common.v1.embedding_pb2 import VECTOR_DTYPE_FLOAT32, Embedding
from zhiyin.common.v1.filter_pb2 import Filter, TimeRange
from zhiyin.retrieval.v1.retrieval_service_pb2 import Examples, SearchQuery, SearchRequest, SearchResponse, WeightedItem

# What ranking reads of an item; everything else is read for the items of the page only.
RANKING_FIELDS = ("id", "title", "categories", "language", "created_at", "prior", "revision")
SPACE = "semantic"

# The first moment that a Timestamp can name.
_YEAR_1 = -62_135_596_800
_MAX_EXCLUDED = 2_000
_MAX_HYDRATED = 4_000


def search_request(
    query: Query, plans: Mapping[SourceKind, Plan], excluded: Iterable[str], attributes: Iterable[str] = ()
) -> SearchRequest:
    """The one request of a list.

    Args:
        query: For catalogue and filter.
        plans: What each source asks for.
        excluded: Ids that must not come back, those that matter most first. Retrieval gets the first 2,000 (so that
            they do not take the place of hits); the filters after the merge drop the rest.
        attributes: Names of attributes that a learned ranker reads of every candidate.
    """
    hydrated = dict.fromkeys(item_id for plan in plans.values() for item_id, _ in plan.proposals)
    return SearchRequest(
        catalog=query.catalog,
        queries=search_queries(plans),
        filter=query.filter,
        hydrate_item_ids=list(hydrated)[:_MAX_HYDRATED],
        exclude_item_ids=[item_id for item_id, _ in zip(excluded, range(_MAX_EXCLUDED), strict=False)],
        read_mask=FieldMask(paths=[*RANKING_FIELDS, *attribute_paths(attributes)]),
        vectors_space=SPACE,
    )


def attribute_paths(names: Iterable[str]) -> list[str]:
    """Single attributes as a read mask names them."""
    return [f"attributes.{name}" for name in names]


def search_queries(plans: Mapping[SourceKind, Plan], limit: int | None = None) -> list[SearchQuery]:
    """Every query of the plans; with `limit`, that many hits of each instead of what the sources want."""
    return [_search_query(ask, limit or ask.limit) for plan in plans.values() for ask in plan.asks]


def _search_query(ask: Ask, limit: int) -> SearchQuery:
    query = SearchQuery(name=ask.name, limit=limit, score_all=ask.score_all)
    if ask.space != SPACE:
        query.space, query.space_version = ask.space, ask.version
    if isinstance(ask.like, TextVector):
        query.vector.CopyFrom(embedding(ask.like))
    else:
        query.examples.CopyFrom(Examples(items=[WeightedItem(item_id=i, weight=w) for i, w in ask.like]))
    if ask.created_since is not None:
        query.filter.CopyFrom(created_since(ask.created_since))
    return query


def space_of(reply: SearchResponse) -> str:
    """Names the space of a reply's vectors: its version and its model. Vectors under different names never meet.

    A catalogue that is dropped and made again starts at version 1 too, perhaps with another model.
    """
    return f"{reply.space_versions.get(SPACE, 0)}/{reply.item_vectors.space_fingerprint}"


def created_since(moment: float) -> Filter:
    """Items created from this moment on, Unix seconds; a moment before the year 1 is its first second."""
    condition = TimeRange(field="created_at")
    # `from` is a keyword of Python.
    getattr(condition, "from").FromSeconds(max(math.floor(moment), _YEAR_1))
    return Filter(time_range=condition)


def embedding(text: TextVector) -> Embedding:
    """A text vector for the wire; the space's own centring is applied by retrieval."""
    return Embedding(
        data=text.vector.astype("<f4").tobytes(),
        dtype=VECTOR_DTYPE_FLOAT32,
        dimensions=text.vector.shape[0],
        space_fingerprint=text.fingerprint,
    )
