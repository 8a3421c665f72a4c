"""How a list is made. `Recommender.make_list` is the table of contents; each step is a file of its own."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Protocol, TypeVar

import numpy as np

from ranking_service import metrics
from ranking_service.attribute_features.item_facts import ItemFacts
from ranking_service.bundles.serving_bundle import BundleOf, ServingBundle
from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.clients import Encoder, Retrieval, SpaceGone
from ranking_service.filters.filters import dropped_among, dropped_ids, in_order_of_weight
from ranking_service.merge import merge
from ranking_service.query import Query
from ranking_service.rules.boosts import boosted
from ranking_service.rules.questions import ask_for_rules, forbidden, label_of, refused_rules
from ranking_service.rules.rule import RuleBook
from ranking_service.rules.served_items import NOTHING_SERVED, Served, ServedItems
from ranking_service.scorers.nudges import nudges
from ranking_service.scorers.scorer import Opinions
from ranking_service.scorers.weighted_sum import Scores
from ranking_service.search_request import search_request, space_of
from ranking_service.selectors.slate import Slate, Versions, make_slate
from ranking_service.sources.source import Plan, Source
from ranking_service.stages import Journal
from ranking_service.taste import Taste
from ranking_service.users.user_state import Statistics
from service_runtime.errors import DependencyUnavailable, FailedPrecondition, InvalidRequest
from service_runtime.telemetry import get_logger
from zhiyin.retrieval.v1.retrieval_service_pb2 import SearchRequest, SearchResponse

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ListLimits:
    """Bounds of one list.

    Attributes:
        max_candidates: The best so many after scoring are ordered for diversity.
        max_length: Places of a list over all its pages.
    """

    max_candidates: int = 200
    max_length: int = 200


T = TypeVar("T")
Asked = tuple[dict[SourceKind, Plan], SearchRequest]
"""The sources' plans, and the one request they make together."""


@dataclass(frozen=True, slots=True)
class Judged:
    """Everything that a list is made of, before it is ordered.

    Attributes:
        pool: The candidates that may be shown.
        opinions: What the sources think of each.
        reply: Retrieval's answer.
    """

    taste: Taste
    pool: Pool
    opinions: Opinions
    reply: SearchResponse


class Understands(Protocol):
    """Makes a taste of a query."""

    async def of(self, query: Query, journal: Journal, facts: ItemFacts | None = None) -> Taste:
        """The taste of whoever the query is for; of liked items with what `facts` reads."""
        ...

    async def with_vectors(self, taste: Taste, journal: Journal) -> Taste:
        """The same taste, its texts encoded anew."""
        ...


class Recommender:
    """Makes lists."""

    def __init__(
        self,
        understanding: Understands,
        sources: Sequence[Source],
        bundle_of: BundleOf,
        required: frozenset[SourceKind],
        encoder: Encoder,
        retrieval: Retrieval,
        statistics: Statistics,
        limits: ListLimits,
        executor: Executor,
        rules_of: Callable[[str], RuleBook],
    ) -> None:
        """`required` sources fail the request when they fail; the others are reported in the journal and left out."""
        self._understanding, self._sources, self._bundle_of = understanding, sources, bundle_of
        self._required = required
        self._encoder, self._retrieval, self._statistics = encoder, retrieval, statistics
        self._limits, self._executor, self._rules_of = limits, executor, rules_of
        self._served_items = ServedItems(retrieval)

    async def make_list(
        self,
        query: Query,
        journal: Journal,
        list_id: str = "",
        served: Served = NOTHING_SERVED,
        bundle: ServingBundle | None = None,
    ) -> Slate:
        """A slate for a query: who asks, what might fit, what fits best.

        Args:
            query: What is asked.
            journal: Gets the time of each stage and what had to be left out.
            list_id: Of the list that is made anew; empty: a new list.
            served: Likewise: what its earlier pages showed.
            bundle: To make it with; None: the one that serves.

        Raises:
            ZhiyinError: The catalogue is unknown, the filter wrong, retrieval down, or a required source failed.
        """
        if bundle is None:
            bundle = await self._in_thread(self._bundle_of, query.catalog)
        taste, plans, reply = await self._candidates(query, bundle, journal)
        if served.digests and taste.query.rules:
            with journal.stage("retrieve"):
                served = await self._served_items.read(taste.query, served)
        list_id = list_id or secrets.token_urlsafe(9)
        return await self._in_thread(self._rank, bundle, taste, plans, reply, journal, list_id, served)

    async def judge(self, query: Query, journal: Journal) -> Judged:
        """The candidates of a list and what speaks for each, as `make_list` scores them: what training learns from.

        Raises:
            ZhiyinError: As `make_list`.
        """
        bundle = await self._in_thread(self._bundle_of, query.catalog)
        taste, plans, reply = await self._candidates(query, bundle, journal)
        return await self._in_thread(self._judge, taste, plans, reply, journal)

    async def _candidates(
        self, query: Query, bundle: ServingBundle, journal: Journal
    ) -> tuple[Taste, dict[SourceKind, Plan], SearchResponse]:
        query = replace(query, rules=self._rules_of(query.catalog).in_force(query.now))
        with journal.stage("user"):
            taste = bundle.lent_to(await self._understanding.of(query, journal, bundle.facts_for(query)))
        with journal.stage("sources"):
            asked = await self._in_thread(self._ask, taste, journal)
        with journal.stage("retrieve"):
            return await self._retrieve(taste, asked, journal)

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        """Runs what computes in a thread, so that the event loop goes on answering others."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)

    def _rank(
        self,
        bundle: ServingBundle,
        taste: Taste,
        plans: Mapping[SourceKind, Plan],
        reply: SearchResponse,
        journal: Journal,
        list_id: str,
        served: Served,
    ) -> Slate:
        judged = self._judge(taste, plans, reply, journal)
        with journal.stage("score"):
            scores = bundle.scorer.score(taste, judged.pool, judged.opinions)
            scores = boosted(scores, judged.pool, taste.query.rules)
        with journal.stage("select"):
            limits, versions = self._limits, self._versions(bundle.id, taste.query.catalog, reply)
            sizes = (limits.max_candidates, limits.max_length)
            return make_slate(list_id, taste, judged.pool, scores, *sizes, versions, served)

    def _judge(self, taste: Taste, plans: Mapping[SourceKind, Plan], reply: SearchResponse, journal: Journal) -> Judged:
        with journal.stage("merge"):
            pool = merge(plans, reply)
            metrics.CANDIDATES.observe(len(pool))
            for kind, said in pool.provenance.items():
                if proposed := int(np.count_nonzero(said.ranks)):
                    metrics.SOURCE_CANDIDATES.labels(kind.name.lower()).inc(proposed)
        with journal.stage("filter"):
            pool = keep_allowed(pool, taste)
        with journal.stage("evidence"):
            return Judged(taste, pool, self._opinions(taste, plans, pool), reply)

    def ask_sources(self, taste: Taste, journal: Journal) -> dict[SourceKind, Plan]:
        """Every source's plan. One that fails is reported and left out, if required it fails the list."""
        plans = {}
        for source in self._sources:
            if source.kind in self._required and any(d.component == source.kind.component for d in journal.degraded):
                raise DependencyUnavailable("encoder", f"{source.kind.component} is required and cannot be asked")
            try:
                plans[source.kind] = source.plan(taste)
            except Exception:
                if source.kind in self._required:
                    raise
                log.exception("source_failed", source=source.kind.component)
                journal.degrade(source.kind.component, "FAILED", "the source failed; the log of the service says why")
        return plans

    def _ask(self, taste: Taste, journal: Journal) -> Asked:
        plans = self.ask_sources(taste, journal)
        latest = [interaction.item_id for interaction in reversed(taste.state.recent) if interaction.item_id]
        read = taste.attributes.items.attributes if taste.attributes is not None else ()
        request = search_request(taste.query, plans, in_order_of_weight(dropped_ids(taste), latest), read)
        if taste.query.rules:
            left_out = ask_for_rules(request, taste, self._limits.max_length)
            if left_out:
                journal.degrade("rules", "FAILED", f"{left_out} rules of other filters find no room in a search")
        return plans, request

    async def _retrieve(
        self, taste: Taste, asked: Asked, journal: Journal
    ) -> tuple[Taste, dict[SourceKind, Plan], SearchResponse]:
        """One search for everything. Text vectors that turn out to be of another model: encoded anew, then left out."""
        try:
            return await self._search(taste, asked, journal)
        except SpaceGone as error:
            journal.degrade(SourceKind.SEQUENCE.component, "UNAVAILABLE", error.message)
            taste = replace(taste, sequence=None)
            return await self._retrieve(taste, await self._in_thread(self._ask, taste, journal), journal)
        except FailedPrecondition:
            self._encoder.forget()
            taste = await self._understanding.with_vectors(taste, journal)
        try:
            return await self._search(taste, await self._in_thread(self._ask, taste, journal), journal)
        except FailedPrecondition as error:
            own = {
                SourceKind.QUERY: taste.query_vector,
                SourceKind.PROFILE: taste.profile_vector,
                SourceKind.SEQUENCE: taste.sequence,
            }
            for kind, used in own.items():
                if used is not None:
                    journal.degrade(kind.component, "MODEL_MISMATCH", error.message)
            taste = replace(taste, query_vector=None, profile_vector=None, sequence=None)
        return await self._search(taste, await self._in_thread(self._ask, taste, journal), journal)

    async def _search(
        self, taste: Taste, asked: Asked, journal: Journal
    ) -> tuple[Taste, dict[SourceKind, Plan], SearchResponse]:
        plans, request = asked
        if not request.queries and not request.hydrate_item_ids:
            return taste, plans, SearchResponse()
        try:
            reply = await self._retrieval.search(request)
        except InvalidRequest as error:
            if taste.attributes is not None and "read_mask" in error.message:
                # The attributes of the candidates have outgrown a reply. The ranker can do without.
                journal.degrade("attributes", "FAILED", f"the learned ranker read none: {error.message}")
                taste = replace(taste, attributes=None)
                return await self._search(taste, await self._in_thread(self._ask, taste, journal), journal)
            refused = refused_rules(request, taste, error.message) if taste.query.rules else frozenset()
            if not refused:
                raise
            # One rule that no longer fits the catalogue must not take the lists of everybody, nor the other rules.
            log.warning("rules_refused", catalog=taste.query.catalog, rules=sorted(refused), reason=error.message)
            journal.degrade("rules", "FAILED", f"without {', '.join(sorted(refused))}: {error.message}")
            rules = tuple(rule for rule in taste.query.rules if rule.id not in refused)
            taste = replace(taste, query=replace(taste.query, rules=rules))
            return await self._search(taste, await self._in_thread(self._ask, taste, journal), journal)
        space = space_of(reply)
        comparable = {i: known for i, known in taste.known_items.items() if known.space == space}
        return replace(taste, known_items=comparable), plans, reply

    def score(self, taste: Taste, plans: Mapping[SourceKind, Plan], pool: Pool) -> Scores:
        """The relevance of every candidate and what it is made of."""
        scorer = self._bundle_of(taste.query.catalog).scorer
        return scorer.score(taste, pool, self._opinions(taste, plans, pool))

    def _opinions(self, taste: Taste, plans: Mapping[SourceKind, Plan], pool: Pool) -> Opinions:
        evidence = {}
        resolutions = {}
        for source in self._sources:
            if source.kind in plans and (values := source.evidence(taste, plans[source.kind], pool)) is not None:
                evidence[source.kind] = values
                resolutions[source.kind] = source.resolution
        newness = cache(partial(self._newness, taste.query.catalog, pool))
        return Opinions(evidence, resolutions, nudges(taste, pool), newness)

    def _newness(self, catalog: str, pool: Pool) -> Floats:
        users = np.array(self._statistics.users_of(catalog, pool.ids), dtype=np.float32)
        return 1.0 / (1.0 + users)

    def _versions(self, bundle: str, catalog: str, reply: SearchResponse) -> Versions:
        return Versions(bundle, dict(reply.space_versions), reply.sequence, self._statistics.event_sequence(catalog))


def keep_allowed(pool: Pool, taste: Taste) -> Pool:
    """The pool without what the filters drop. Retrieval left most of it out already; this holds whatever it did."""
    gone = dropped_among(pool.ids, taste)
    rows = [row for row, item_id in enumerate(pool.ids) if item_id not in gone]
    for condition in forbidden(taste) if pool.labels else ():
        # Those for which the request's filter had no room.
        flags = pool.labels.get(label_of(condition))
        rows = rows if flags is None else [row for row in rows if not flags[row]]
    return pool if len(rows) == len(pool) else pool.take(np.array(rows, dtype=np.int32))
