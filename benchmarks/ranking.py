"""What a list costs the ranking service itself: stages, diversity methods, growth with the history, a trained bundle.

Retrieval and encoder are objects in this process; what the former takes to make up its answer is left out, what ranking
takes to check and read it counts. Statistics are ranking's own and folded from events. Variants are run in turn, over
and over, so that a busy machine disturbs all of them alike: trust the ratios.
"""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import numpy as np

from benchmarks.served_lists import cost_of_keeping
from benchmarks.trained_bundle import trained_bundle
from ranking_service.bundles.sequence_files import SPACE
from ranking_service.bundles.serving_bundle import BUILTIN, ServingBundle
from ranking_service.clients import check_search
from ranking_service.query import DiversityMethod, Query
from ranking_service.scorers.scorer import BuiltinScorer
from ranking_service.scorers.source_weights import source_weights
from ranking_service.serving import Serving, build_serving
from ranking_service.settings import RankingSettings
from ranking_service.stages import Journal
from ranking_service.statistics.catalog_statistics import CatalogStatistics
from ranking_service.users.event import LogEntry
from ranking_service.users.user_state import Interaction, UserState
from ranking_service.vector_cache import TextVector
from service_runtime.signed_token import TokenSigner
from zhiyin.common.v1.embedding_pb2 import VECTOR_DTYPE_FLOAT16, EmbeddingMatrix
from zhiyin.common.v1.filter_pb2 import Filter
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1.ranking_service_pb2 import EVENT_TYPE_LIKE
from zhiyin.retrieval.v1.retrieval_service_pb2 import SearchRequest, SearchResponse

_DIMENSIONS = 384
_ITEMS = 2_000
_FIRST_HIT, _HITS_AMONG = 600, 180
_ROUNDS = 60
_USERS, _EVENTS = 1_000, 50_000
_FINGERPRINT = "benchmark"
_HISTORIES = (0, 1, 10, 50, 200)


def run() -> dict[str, object]:
    """Milliseconds of CPU a list, and ratios between variants."""
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(1) as executor:
        return asyncio.run(_measure(Path(folder), executor))


async def _measure(folder: Path, executor: ThreadPoolExecutor) -> dict[str, object]:
    catalogue = _Catalogue()
    bundles = {
        "builtin": ServingBundle(BUILTIN, BuiltinScorer(source_weights)),
        "trained": trained_bundle(catalogue.item_ids, catalogue.vectors, _FINGERPRINT),
    }
    serving = build_serving(
        RankingSettings(data_dir=folder),
        _Users(),
        _Statistics(),
        _Encoder(),
        catalogue,
        TokenSigner(b"benchmark-benchmark"),
        executor,
        lambda catalog: bundles[catalog],
    )
    variants = {f"history_{n}": Query("builtin", f"user-{n}", now=time.time()) for n in _HISTORIES}
    for method in (DiversityMethod.DPP, DiversityMethod.NONE):
        variants[f"history_50_{method.value}"] = Query("builtin", "user-50", method=method, now=time.time())
    variants |= {f"trained_history_{n}": Query("trained", f"user-{n}", now=time.time()) for n in (10, 50)}
    cpu: dict[str, list[float]] = defaultdict(list)
    stages: dict[str, dict[str, list[float]]] = {
        name: defaultdict(list) for name in ("history_50", "trained_history_50")
    }
    candidates: dict[str, int] = {}
    for _ in range(_ROUNDS):
        for name, query in variants.items():
            catalogue.cpu_s, began = 0.0, time.process_time()
            journal = await _one_list(serving, query)
            cpu[name].append(1e3 * (time.process_time() - began - catalogue.cpu_s))
            candidates[name] = catalogue.last_count
            if name in stages:
                for stage, seconds in journal.timings:
                    stages[name][stage].append(1e3 * seconds)
    slate, page = await serving.lists.first_page(variants["history_50"], 10, Journal())
    entries = await serving.lists.entries(slate, page, ("title", "categories"), True, Journal())
    keeping = cost_of_keeping(serving, slate, page, entries, folder)
    await serving.scout.close()
    middle = {name: statistics.median(values) for name, values in cpu.items()}
    took = {name: {s: statistics.median(v) for s, v in of.items()} for name, of in stages.items()}
    builtin, whole = took["history_50"], sum(took["history_50"].values())
    return {
        "ratios": {
            "mmr_to_none": round(middle["history_50"] / middle["history_50_none"], 3),
            "dpp_to_none": round(middle["history_50_dpp"] / middle["history_50_none"], 3),
            "history_200_to_0": round(middle["history_200"] / middle["history_0"], 3),
            "trained_to_builtin": round(middle["trained_history_50"] / middle["history_50"], 3),
            **{f"stage_{stage}_share": round(ms / whole, 3) for stage, ms in builtin.items()},
        },
        "figures": {
            "candidates": {name: candidates[name] for name in stages},
            "cpu_ms_p50": {name: round(value, 3) for name, value in middle.items()},
            # What stands in for retrieval builds its answer in this process: its stage has that, these two do not.
            "wall_ms_p50_without_retrieve": round(whole - builtin["retrieve"], 3),
            "served_list_log": keeping,
            "stage_wall_ms_p50": {name: {stage: round(ms, 3) for stage, ms in of.items()} for name, of in took.items()},
        },
    }


async def _one_list(serving: Serving, query: Query) -> Journal:
    journal = Journal()
    slate, page = await serving.lists.first_page(query, 10, journal)
    entries = await serving.lists.entries(slate, page, ("title", "categories"), True, journal)
    assert len(entries) == 10
    return journal


class _Catalogue:
    """Random items in 40 groups; the hits of any search are among 180, which few act on."""

    def __init__(self) -> None:
        random = np.random.default_rng(7)
        centres = random.standard_normal((40, _DIMENSIONS))
        vectors = centres[np.arange(_ITEMS) % 40] + random.standard_normal((_ITEMS, _DIMENSIONS))
        self._vectors = (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float16)
        self._items = [
            Item(
                id=f"item-{n}", title=f"Title of item {n}", categories=[f"category {n % 40}"], language="en", revision=1
            )
            for n in range(_ITEMS)
        ]
        for item in self._items:
            item.created_at.FromSeconds(1_600_000_000)
        self._rows = {item.id: row for row, item in enumerate(self._items)}
        self.item_ids = list(self._rows)
        self.vectors = self._vectors.astype(np.float32)
        self.cpu_s = 0.0
        self.last_count = 0

    async def search(self, request: SearchRequest) -> SearchResponse:
        """Hydrated items and hits, each once; `cpu_s` grows by what it takes to make them up."""
        began = time.thread_time()
        raw = self._answer(request).SerializeToString()
        self.cpu_s += time.thread_time() - began
        reply = SearchResponse.FromString(raw)
        check_search(reply)
        self.last_count = len(reply.items)
        return reply

    def _answer(self, request: SearchRequest) -> SearchResponse:
        places: dict[int, int] = {}
        for item_id in request.hydrate_item_ids:
            places.setdefault(self._rows[item_id], len(places))
        reply = SearchResponse(space_versions={"semantic": 1, SPACE: 1})
        for number, query in enumerate(request.queries):
            found = [_FIRST_HIT + (37 * number + place) % _HITS_AMONG for place in range(query.limit)]
            hits = [places.setdefault(row, len(places)) for row in found]
            reply.results.add(name=query.name, item_indices=hits, scores=[1 - 0.001 * n for n in range(len(hits))])
        rows = list(places)
        for query, result in zip(request.queries, reply.results, strict=True):
            if query.score_all:
                result.all_scores.extend(np.sin(np.arange(len(rows))).tolist())
        reply.items.extend(self._items[row] for row in rows)
        reply.item_vectors.CopyFrom(_matrix(self._vectors[rows]))
        if request.queries:
            reply.query_vectors.CopyFrom(_matrix(self._vectors[[37 * n for n in range(len(request.queries))]]))
        return reply

    async def get_items(self, catalog: str, item_ids: Sequence[str], fields: Sequence[str]) -> dict[str, Item]:
        """The items."""
        return {item_id: self._items[self._rows[item_id]] for item_id in item_ids}

    async def list_items(
        self, catalog: str, condition: Filter | None, page_token: str, fields: Sequence[str]
    ) -> tuple[Sequence[Item], str]:
        """One page."""
        return self._items[:1000], ""


class _Users:
    """user-N has N interactions."""

    def __init__(self) -> None:
        self._states = {f"user-{n}": self._state(n) for n in _HISTORIES}

    async def read(
        self, catalog: str, user_id: str, consistency_token: str = "", with_shown: bool = False
    ) -> UserState:
        """The user."""
        return self._states[user_id]

    def _state(self, events: int) -> UserState:
        now = time.time()
        recent = [Interaction(f"item-{1000 + 3 * n}", 5, 1.0, now - 600 * (events - n)) for n in range(events)]
        return UserState(f"user-{events}", True, "likes a bit of everything", recent=tuple(recent))


class _Statistics:
    """Those of the service, of events of some users who favour the first items."""

    def __init__(self) -> None:
        random, now = np.random.default_rng(5), time.time()
        users = random.integers(1, _USERS + 1, _EVENTS).tolist()
        items = (_ITEMS * random.random(_EVENTS) ** 2).astype(int).tolist()
        log = [
            LogEntry(n, user, f"item-{item}", EVENT_TYPE_LIKE, None, now - 10 * (_EVENTS - n))
            for n, (user, item) in enumerate(zip(users, items, strict=True), start=1)
        ]
        self._folded = CatalogStatistics(30 * 86_400.0)
        self._folded.apply(log, _EVENTS)

    def popular(self, catalog: str, now: float, limit: int) -> list[tuple[str, float]]:
        """Descending."""
        return self._folded.popular(now, limit)

    def transitions(self, catalog: str, weighted_items: Mapping[str, float], limit: int) -> list[tuple[str, float]]:
        """Descending."""
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


class _Encoder:
    """One vector for every text, as from a warm cache."""

    def __init__(self) -> None:
        self._vector = TextVector(np.full(_DIMENSIONS, _DIMENSIONS**-0.5, dtype=np.float32), _FINGERPRINT)

    async def embed(self, texts: Sequence[str]) -> list[TextVector]:
        """The vectors."""
        return [self._vector] * len(texts)

    def forget(self) -> None:
        """Nothing to forget."""


def _matrix(rows: np.ndarray[tuple[int, int], np.dtype[np.float16]]) -> EmbeddingMatrix:
    return EmbeddingMatrix(
        data=rows.astype("<f2").tobytes(), dtype=VECTOR_DTYPE_FLOAT16, rows=len(rows), dimensions=rows.shape[1]
    )
