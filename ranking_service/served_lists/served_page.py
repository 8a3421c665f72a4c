"""A page that was just served, and how it becomes a record: in the log's own thread, since nothing of it changes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ranking_service.page import Page
from ranking_service.selectors.slate import Slate
from ranking_service.served_lists.page_record import PageContent, PageRecord, pack
from ranking_service.served_lists.place_facts import place_facts
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

Wording = Callable[[Slate, Page], Sequence[pb2.RecommendedItem]]
"""The places of a page with sources and reasons."""


@dataclass(frozen=True, slots=True)
class ServedPage:
    """A page and everything it was made of.

    Attributes:
        request: None for SimilarItems, whose lists nobody can ask for again.
        explained: Whether the response has sources and reasons.
        began: When the request came in (monotonic): what was asked before its user was erased is not kept.
    """

    slate: Slate
    page: Page
    request: pb2.RecommendRequest | None
    response: pb2.RecommendResponse | pb2.SimilarItemsResponse
    explained: bool
    began: float


def record_of(served: ServedPage, wording: Wording, time_us: int) -> PageRecord:
    """The record of a page. Takes a millisecond or so: not for the event loop."""
    slate, page, sent = served.slate, served.page, served.response
    query = slate.taste.query
    words = sent.items if served.explained else wording(slate, page)
    request = pb2.RecommendRequest()
    if served.request is not None:
        request.CopyFrom(served.request)
        request.ClearField("consistency_token")
    response = pb2.RecommendResponse(
        items=[_slim(entry, slate.items[place.row]) for entry, place in zip(words, page.places, strict=True)],
        degraded=sent.degraded,
        versions=sent.versions,
        intents=sent.intents if isinstance(sent, pb2.RecommendResponse) else (),
    )
    content = PageContent(
        request=request,
        response=response,
        places=place_facts(slate, page),
        seed=query.seed,
        now=query.now,
        after=slate.after.digests,
        after_ids=slate.after.ids,
        collapsed=slate.collapsed,
    )
    key = slate.taste.state.key
    return PageRecord(query.catalog, slate.list_id, page.first_rank, query.user_id, key, time_us, pack(content))


def _slim(entry: pb2.RecommendedItem, item: Item) -> pb2.RecommendedItem:
    return pb2.RecommendedItem(
        item=Item(id=item.id, title=item.title, categories=item.categories),
        probability=entry.probability if entry.HasField("probability") else None,
        rank=entry.rank,
        score=entry.score,
        sources=entry.sources,
        reason=entry.reason,
    )
