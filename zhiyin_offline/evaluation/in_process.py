"""The ranking service's own pipeline in this process, over recorded events: sources, scorers, diversity, nothing else.

Only what is on the other side of a socket is replaced: users are read from the record as they were at a moment, the
catalogue is in memory. Statistics are the service's, folded from the events that a method may learn from.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from functools import cached_property
from itertools import islice
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from ranking_service.bundles.serving_bundle import BUILTIN, ServingBundle
from ranking_service.pipeline import Judged, Recommender
from ranking_service.query import DEFAULT_DIVERSITY, Query
from ranking_service.scorers.scorer import BuiltinScorer
from ranking_service.scorers.source_weights import source_weights
from ranking_service.selectors.slate import Slate
from ranking_service.serving import build_serving
from ranking_service.settings import RankingSettings
from ranking_service.stages import Journal
from ranking_service.statistics.catalog_statistics import CatalogStatistics
from ranking_service.users.event_types import RULES
from ranking_service.users.user_state import Interaction, UserState
from ranking_service.vector_cache import TextVector
from service_runtime.attributes import from_proto
from service_runtime.errors import DependencyUnavailable
from service_runtime.request_context import Deadline, RequestContext, enter
from service_runtime.signed_token import TokenSigner
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.memory_catalog import MemoryCatalog
from zhiyin_offline.evaluation.protocols import Case, done_with, user_rows

CATALOG = "default"
T = TypeVar("T")
Rows = NDArray[np.int64]


class RecordedStatistics:
    """The `Statistics` of one catalogue over a record."""

    def __init__(self, dataset: Dataset, half_life_s: float) -> None:
        self._dataset = dataset
        self._folded = CatalogStatistics(half_life_s)
        self.known = np.zeros(len(dataset.events), np.bool_)
        """Rows that were folded in, shape (events,)."""

    def fold(self, rows: Rows) -> None:
        """Takes events in; rows rise over all calls."""
        self.known[rows] = True
        if len(rows):
            self._folded.apply(list(self._dataset.log(rows)), int(rows[-1]) + 1)

    def popular(self, catalog: str, now: float, limit: int) -> list[tuple[str, float]]:
        """As in `Statistics`."""
        return self._folded.popular(now, limit)

    def transitions(self, catalog: str, weighted_items: Mapping[str, float], limit: int) -> list[tuple[str, float]]:
        """As in `Statistics`."""
        return self._folded.following(weighted_items, limit)

    def liked_by_neighbours(
        self, catalog: str, weighted_items: Mapping[str, float], user_key: int, limit: int
    ) -> list[tuple[str, float]]:
        """As in `Statistics`."""
        return self._folded.liked_by_neighbours(weighted_items, user_key, limit)

    def users_of(self, catalog: str, item_ids: Sequence[str]) -> list[int]:
        """As in `Statistics`."""
        return self._folded.users_of(item_ids)

    def event_sequence(self, catalog: str) -> int:
        """As in `Statistics`."""
        return self._folded.sequence


class RecordedUsers:
    """The `UserReader` over a record: each user as they were in the case at hand.

    Of others, whom the user of the case follows, what has been folded into the statistics and came before the case.
    """

    def __init__(self, dataset: Dataset, max_recent: int, statistics: RecordedStatistics) -> None:
        self._dataset, self._max_recent, self._statistics = dataset, max_recent, statistics
        self.case = Case(0, 0, 0, 0.0, np.empty(0, np.int64))

    async def read(
        self, catalog: str, user_id: str, consistency_token: str = "", with_shown: bool = False
    ) -> UserState:
        """As in `UserReader`."""
        dataset, events = self._dataset, self._dataset.events
        number_of_user = self._numbers.get(user_id, -1)
        rows = self.case.history if number_of_user == self.case.user else self._of_another(number_of_user)
        profile = dataset.users.get(user_id)
        seen, hidden, recent = set(), set(), []
        for row in rows.tolist():
            kind, number = int(events.event_type[row]), int(events.item[row])
            rule = RULES[kind]
            item_id = dataset.item_ids[number] if number >= 0 else ""
            if item_id and rule.marks_seen(_value(events.value[row])):
                seen.add(item_id)
            if item_id and rule.hides:
                hidden.add(item_id)
            if item_id and rule.in_history:
                recent.append(
                    Interaction(item_id, kind, float(events.strength[row]), float(events.time[row]), sequence=row + 1)
                )
        return UserState(
            user_id,
            known=bool(len(rows)) or profile is not None,
            profile=profile.profile if profile else "",
            attributes=from_proto(profile.attributes) if profile else {},
            follows=tuple(profile.follows) if profile else (),
            recent=tuple(recent[-self._max_recent :]),
            seen=frozenset(seen),
            hidden=frozenset(hidden),
            version=len(rows),
            key=number_of_user + 1,
        )

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {user_id: number for number, user_id in enumerate(self._dataset.user_ids)}

    @cached_property
    def _rows(self) -> list[Rows]:
        return user_rows(self._dataset)

    def _of_another(self, number: int) -> Rows:
        if number < 0:
            return np.empty(0, np.int64)
        rows = self._rows[number]
        return rows[self._statistics.known[rows] & (self._dataset.events.time[rows] < self.case.now)]


class NoEncoder:
    """The `Encoder` where none is at hand: profile texts are then left out, as while the encoder is down."""

    async def embed(self, texts: Sequence[str]) -> list[TextVector]:
        """As in `Encoder`."""
        raise DependencyUnavailable("encoder", "is not part of this evaluation")

    def forget(self) -> None:
        """As in `Encoder`."""


class InlineExecutor(Executor):
    """Runs at once: nothing else waits for this event loop."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """See `Executor`."""
        done: Future[T] = Future()
        try:
            done.set_result(fn(*args, **kwargs))
        except BaseException as error:
            done.set_exception(error)
        return done


class RecordedService:
    """Ranking over a record.

    Args:
        dataset: The record.
        catalog: Its items, with their spaces.
        settings: Of the ranking service.
        bundle: What makes the lists; None: the weights of the house.

    Attributes:
        bundle: What makes the lists; may be replaced between two calls.
    """

    def __init__(
        self,
        dataset: Dataset,
        catalog: MemoryCatalog,
        settings: RankingSettings | None = None,
        bundle: ServingBundle | None = None,
    ) -> None:
        settings = settings or RankingSettings()
        self.bundle = bundle or ServingBundle(BUILTIN, BuiltinScorer(source_weights))
        self._dataset, self._done = dataset, done_with(dataset)
        self.statistics = RecordedStatistics(dataset, settings.popularity_half_life_days * 86_400.0)
        self._users = RecordedUsers(dataset, settings.max_recent_interactions, self.statistics)
        self._serving = build_serving(
            settings,
            self._users,
            self.statistics,
            NoEncoder(),
            catalog,
            TokenSigner(b"evaluation" * 4),
            InlineExecutor(),
            lambda _: self.bundle,
        )

    @property
    def recommender(self) -> Recommender:
        """What makes its lists."""
        return self._serving.main

    def lists(
        self, cases: Sequence[Case], k: int, diversity: float = DEFAULT_DIVERSITY, include_history: bool = False
    ) -> NDArray[np.int32]:
        """The first k items of everybody's list, as item numbers, shape (cases, k), -1 where a list is shorter."""
        lists: NDArray[np.int32] = self.ranked(cases, k, [served_rows], diversity, include_history)[0]
        return lists

    def ranked(
        self,
        cases: Sequence[Case],
        k: int,
        orders: Sequence[Callable[[Slate], Iterator[int]]],
        diversity: float = DEFAULT_DIVERSITY,
        include_history: bool = False,
    ) -> NDArray[np.int32]:
        """As `lists` in each of some orders of a slate's rows, from one pass; shape (orders, cases, k)."""
        numbers = self._dataset.item_numbers
        out = np.full((len(orders), len(cases), k), -1, np.int32)

        def read(slate: Slate) -> list[list[int]]:
            return [[numbers[slate.items[row].id] for row in islice(order(slate), k)] for order in orders]

        for place, lists in enumerate(self.slates(cases, read, diversity, include_history)):
            for number, items in enumerate(lists):
                out[number, place, : len(items)] = items
        return out

    def slates(
        self,
        cases: Sequence[Case],
        read: Callable[[Slate], T],
        diversity: float = DEFAULT_DIVERSITY,
        include_history: bool = False,
    ) -> list[T]:
        """What `read` makes of everybody's list."""

        async def make(query: Query) -> T:
            return read(await self.recommender.make_list(query, Journal(), "evaluation"))

        return self._run(cases, make, diversity, include_history)

    def judge(self, cases: Sequence[Case], read: Callable[[Judged], T], include_history: bool = False) -> list[T]:
        """What `read` makes of everybody's candidates, before they are ordered."""

        async def make(query: Query) -> T:
            return read(await self.recommender.judge(query, Journal()))

        return self._run(cases, make, 0.0, include_history)

    def _run(
        self, cases: Sequence[Case], make: Callable[[Query], Awaitable[T]], diversity: float, include_history: bool
    ) -> list[T]:
        async def all_of_them() -> list[T]:
            return [await self._one(case, make, diversity, include_history) for case in cases]

        return asyncio.run(all_of_them())

    async def _one(
        self, case: Case, make: Callable[[Query], Awaitable[T]], diversity: float, include_history: bool
    ) -> T:
        enter(RequestContext("evaluation", Deadline.after(60.0)))
        self._users.case = case
        items = self._dataset.events.item[case.history[self._done[case.history]]]
        known = frozenset(self._dataset.item_ids[item] for item in np.unique(items[items >= 0]).tolist())
        context = self._dataset.events.context_of(case.target_row)
        query = Query(
            CATALOG,
            self._dataset.user_ids[case.user],
            locale=context.locale,
            device=context.device,
            place=context.place,
            excluded=frozenset() if include_history else known,
            include_seen=include_history,
            diversity=diversity,
            now=case.now,
        )
        return await make(query)


def served_rows(slate: Slate) -> Iterator[int]:
    """Rows as the service serves them."""
    return (place.row for place in slate.places())


def _value(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
