"""Orders candidates that the caller found with a system of its own: their scores, Zhiyin's if asked, then diversity."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask

from ranking_service.candidate import Floats, SourceKind, best_first
from ranking_service.clients import Retrieval
from ranking_service.diversity.knob import diverse_order
from ranking_service.merge import merge
from ranking_service.pipeline import Recommender, Understands
from ranking_service.query import DiversityMethod, Query
from ranking_service.scorers.weighted_sum import z_scores
from ranking_service.search_request import RANKING_FIELDS, SPACE, search_queries
from ranking_service.sources.source import Plan
from ranking_service.stages import Journal
from ranking_service.taste import Taste
from service_runtime.errors import NotFound, ZhiyinError
from zhiyin.retrieval.v1.retrieval_service_pb2 import SearchRequest, SearchResponse

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Candidates:
    """What the caller found; n candidates.

    Attributes:
        ids: Different item ids.
        scores: Of the caller, finite, higher is better. Shape (n,).
        vectors: Of the caller, any length but 0, shape (n, d); None: those of the catalogue.
    """

    ids: Sequence[str]
    scores: Floats
    vectors: Floats | None


@dataclass(frozen=True, slots=True)
class Reranked:
    """Rows of the candidates in their new order, and the score of every candidate before diversity, shape (n,)."""

    rows: Sequence[int]
    scores: Floats


class Reranker:
    """Scores and diversifies. With the caller's vectors and without a user it asks nobody."""

    def __init__(
        self, recommender: Recommender, understanding: Understands, retrieval: Retrieval, executor: Executor
    ) -> None:
        self._recommender, self._understanding = recommender, understanding
        self._retrieval, self._executor = retrieval, executor

    async def rerank(
        self, query: Query, candidates: Candidates, personalization: float, places: int, journal: Journal
    ) -> Reranked:
        """The best order.

        Args:
            query: The user, catalogue, diversity and method.
            candidates: What to order.
            personalization: Weight in [0, 1] of Zhiyin's scores; the caller's keep the rest.
            places: How many are wanted.
            journal: Gets timings and what had to be left out.
        """
        vectors, personal = candidates.vectors, None
        if candidates.vectors is None or personalization > 0:
            found, personal = await self._ask_catalogue(query, candidates, personalization, journal)
            vectors = vectors if vectors is not None else found
        scores = candidates.scores
        with journal.stage("score"):
            if personal is not None:
                own = z_scores(scores.astype(np.float64), 1e-6).astype(np.float32)
                scores = (1 - personalization) * own + personalization * personal
        if vectors is None:
            vectors = np.zeros((len(candidates.ids), 1), np.float32)
        with journal.stage("diversify"):
            rows = await self._in_thread(_order, candidates.ids, scores, vectors, query.diversity, query.method, places)
        return Reranked(rows, scores)

    async def _ask_catalogue(
        self, query: Query, candidates: Candidates, personalization: float, journal: Journal
    ) -> tuple[Floats | None, Floats | None]:
        """The candidates' vectors and, as z-scores, what the user would think of each; zeros for unknown ones."""
        try:
            with journal.stage("user"):
                taste = await self._understanding.of(query, journal) if personalization > 0 else None
            plans: Mapping[SourceKind, Plan] = {}
            if taste is not None:
                plans = await self._in_thread(self._recommender.ask_sources, taste, journal)
            with journal.stage("retrieve"):
                request = SearchRequest(
                    catalog=query.catalog,
                    queries=search_queries(plans, limit=1),
                    hydrate_item_ids=candidates.ids,
                    read_mask=FieldMask(paths=RANKING_FIELDS),
                    vectors_space=SPACE,
                    # Whether its candidates are available is the caller's business.
                    include_unavailable=True,
                )
                reply = await self._retrieval.search(request)
        except NotFound:
            raise
        except ZhiyinError as error:
            journal.degrade(
                "dependency:retrieval", "UNAVAILABLE", f"ordered by the caller's scores alone: {error.message}"
            )
            return None, None
        return await self._in_thread(self._judge, candidates, taste, plans, reply)

    def _judge(
        self, candidates: Candidates, taste: Taste | None, plans: Mapping[SourceKind, Plan], reply: SearchResponse
    ) -> tuple[Floats, Floats | None]:
        merged = merge(plans, reply)
        rows = {item.id: row for row, item in enumerate(merged.items)}
        known = np.array([place for place, item_id in enumerate(candidates.ids) if item_id in rows], dtype=np.int32)
        pool = merged.take(np.array([rows[candidates.ids[place]] for place in known], dtype=np.int32))
        vectors = np.zeros((len(candidates.ids), merged.vectors.shape[1]), dtype=np.float32)
        vectors[known] = pool.vectors
        if taste is None:
            return vectors, None
        personal = np.zeros(len(candidates.ids), dtype=np.float32)
        if len(known):
            personal[known] = z_scores(self._recommender.score(taste, plans, pool).total, 1e-6)
        return vectors, personal

    async def _in_thread(self, function: Callable[..., T], *arguments: object) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, function, *arguments)


def _order(
    ids: Sequence[str], scores: Floats, vectors: Floats, diversity: float, method: DiversityMethod, places: int
) -> list[int]:
    by_score = best_first(scores, ids)
    lengths = np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    unit = (vectors / lengths)[by_score].astype(np.float32)
    return [int(by_score[place]) for place in islice(diverse_order(scores[by_score], unit, diversity, method), places)]
