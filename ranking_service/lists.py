"""Serves lists page by page: the slate from the pipeline or the store, reasons, tokens, the answer."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from typing import TypeVar

from ranking_service import metrics
from ranking_service.attribution import attribution_token, list_mark
from ranking_service.candidate import SourceKind
from ranking_service.clients import Retrieval
from ranking_service.conversions import masked_item
from ranking_service.diversity.variety import variety
from ranking_service.filters.filters import dropped_ids
from ranking_service.list_store import ListStore
from ranking_service.page import Page, read_page
from ranking_service.page_token import PageToken
from ranking_service.pipeline import Recommender
from ranking_service.query import Query
from ranking_service.reasons import Followers, Reasons, loudest_source
from ranking_service.rules.served_items import Served
from ranking_service.search_request import RANKING_FIELDS
from ranking_service.selectors.exploration_slots import Place
from ranking_service.selectors.slate import Slate
from ranking_service.stages import Journal
from ranking_service.taste import first_impression
from ranking_service.users.user_state import Statistics, UserReader, UserState
from service_runtime.errors import ZhiyinError
from service_runtime.signed_token import TokenSigner
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

_FOLLOWERS = 100
T = TypeVar("T")


class ListServer:
    """Makes lists, keeps them for their next pages, and words them."""

    def __init__(
        self,
        recommender: Recommender,
        store: ListStore,
        users: UserReader,
        retrieval: Retrieval,
        statistics: Statistics,
        signer: TokenSigner,
        executor: Executor,
    ) -> None:
        self._recommender, self._store, self._users, self._retrieval = recommender, store, users, retrieval
        self._statistics, self._signer, self._executor = statistics, signer, executor

    async def first_page(self, query: Query, size: int, journal: Journal, keep: bool = True) -> tuple[Slate, Page]:
        """A new list; `keep`: for its next pages."""
        slate = await self._recommender.make_list(query, journal)
        with journal.stage("diversify"):
            page = await self._in_thread(read_page, slate, size)
        if keep and page.has_more:
            self._store.put(slate)
        return slate, page

    async def next_page(self, query: Query, token: PageToken, size: int, journal: Journal) -> tuple[Slate, Page]:
        """More of a list: of the very same while it is kept, else of one made anew without what was served."""
        slate = self._store.get(token.list_id)
        state = UserState(query.user_id)
        if slate is not None and query.user_id:
            with journal.stage("user"):
                state = await self._users.read(query.catalog, query.user_id, query.consistency_token)
        # A key is never given twice: another one means that the user whose list it was has been erased.
        if slate is None or slate.taste.state.key not in (0, state.key):
            metrics.LISTS_REBUILT.inc()
            served = Served(token.served, token.collapsing)
            slate = await self._recommender.make_list(query, journal, token.list_id, served)
            self._store.put(slate)
            return slate, await self._in_thread(read_page, slate, size, 0, token.served)
        dropped = dropped_ids(first_impression(query, state))
        with journal.stage("diversify"):
            return slate, await self._in_thread(read_page, slate, size, token.places, token.served, dropped)

    async def entries(
        self, slate: Slate, page: Page, fields: Sequence[str], explain: bool, journal: Journal
    ) -> list[pb2.RecommendedItem]:
        """The places of a page for the wire."""
        full: Mapping[str, Item] = {}
        if page.places and not set(fields) <= set(RANKING_FIELDS):
            with journal.stage("hydrate"):
                full = await self._full_items(slate, page, fields, journal)
        with journal.stage("explain"):
            entries, loudest = await self._in_thread(self._worded_and_measured, slate, page, fields, explain, full)
        for source, count in loudest.items():
            metrics.SERVED.labels(source.name.lower()).inc(count)
        return entries

    def _worded_and_measured(
        self, slate: Slate, page: Page, fields: Sequence[str], explain: bool, full: Mapping[str, Item]
    ) -> tuple[list[pb2.RecommendedItem], Counter[SourceKind]]:
        if (found := variety(slate.vectors[[place.row for place in page.places]])) is not None:
            metrics.VARIETY.observe(found)
        return self.word(slate, page, fields, explain, full)

    def explained(self, slate: Slate, page: Page) -> Sequence[pb2.RecommendedItem]:
        """The places of a page with sources and reasons, for a page that was served without."""
        return self.word(slate, page, (), True, {})[0]

    async def _full_items(
        self, slate: Slate, page: Page, fields: Sequence[str], journal: Journal
    ) -> Mapping[str, Item]:
        ids = [slate.items[place.row].id for place in page.places]
        try:
            return await self._retrieval.get_items(slate.taste.query.catalog, ids, fields)
        except ZhiyinError as error:
            journal.degrade("hydrate", "UNAVAILABLE", f"items have only the fields that ranking reads: {error.message}")
            return {}

    def word(
        self, slate: Slate, page: Page, fields: Sequence[str], explain: bool, full: Mapping[str, Item]
    ) -> tuple[list[pb2.RecommendedItem], Counter[SourceKind]]:
        """The places for the wire, and how many of them each source spoke loudest for.

        Args:
            slate: The list.
            page: Its page.
            fields: Fields of Item to send.
            explain: Whether to say why.
            full: Items with all these fields, by id; those that are not there get what the list has of them.
        """
        reasons = Reasons(slate, self._followers(slate.taste.query.catalog))
        mark = list_mark(slate)
        at_hand = [field for field in fields if field in RANKING_FIELDS]
        entries = []
        loudest: Counter[SourceKind] = Counter()
        for rank, place in enumerate(page.places, start=page.first_rank):
            item = slate.items[place.row]
            entry = pb2.RecommendedItem(
                item=masked_item(full[item.id], fields) if item.id in full else masked_item(item, at_hand),
                rank=rank,
                score=float(slate.scores.total[place.row]),
                attribution_token=attribution_token(self._signer, mark, item.id, rank, place.propensity),
            )
            if slate.scores.chance is not None:
                entry.probability = float(slate.scores.chance[place.row])
            source = SourceKind.RULE if place.pinned else loudest_source(slate, place.row, place.explored)
            loudest[source] += 1
            if explain:
                entry.sources.extend(_source_scores(slate, place))
                reason = reasons.of(place.row, source)
                entry.reason.CopyFrom(pb2.Reason(source=int(source), text=reason.text, item_ids=reason.item_ids))  # type: ignore[arg-type]
            entries.append(entry)
        return entries, loudest

    def _followers(self, catalog: str) -> Followers:
        @functools.lru_cache(maxsize=16)
        def followers(item_id: str) -> frozenset[str]:
            return frozenset(other for other, _ in self._statistics.transitions(catalog, {item_id: 1.0}, _FOLLOWERS))

        return followers

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


def _source_scores(slate: Slate, place: Place) -> list[pb2.SourceScore]:
    """What each source that proposed the item thought of it, and the rule that pinned it."""
    row = place.row
    scores = [
        pb2.SourceScore(
            source=int(kind),  # type: ignore[arg-type]
            rank=int(said.ranks[row]),
            score=float(said.scores[row]),
            contribution=_contribution(slate, kind, row),
        )
        for kind, said in slate.provenance.items()
        if said.ranks[row] > 0 and kind is not SourceKind.RULE
    ]
    if place.pinned or not scores:
        scores.append(pb2.SourceScore(source=int(SourceKind.RULE), rank=1))  # type: ignore[arg-type]
    return scores


def _contribution(slate: Slate, kind: SourceKind, row: int) -> float:
    contributions = slate.scores.by_source.get(kind)
    return float(contributions[row]) if contributions is not None else 0.0
