"""How costs grow: a list's searches with the catalogue, a training with the record.

Every catalogue size is searched with what one Recommend asks (six queries of 100 hits together), in this process; the
events of a record are generated with tastes and steps that can be learned. Ratios are to the smallest size.

Environment:
    ZHIYIN_BENCH_CATALOGUES: sizes, separated by commas; default 10000,100000 (a million takes 10 minutes and 4 GiB).
    ZHIYIN_BENCH_RECORDS: events, separated by commas; default 20000,200000.
    ZHIYIN_BENCH_SEQUENCE: 1: trainings with the sequence model; default 0.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")

import resource
import statistics
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval_service.space_index import Geometry, IndexQuery, SpaceIndex
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin_offline.evaluation.dataset import Dataset, EventRows
from zhiyin_offline.training.train import train
from zhiyin_offline.training.training_settings import TrainingSettings

_DIMENSIONS = 384
_QUERIES, _HITS, _ROUNDS = 6, 100, 60
_EVENTS_PER_USER = 9
_TEXT_DIMENSIONS = 64


def run() -> dict[str, Any]:
    """Milliseconds of a list's searches by catalogue size, seconds and peak memory of a training by events."""
    ratios: dict[str, float] = {}
    figures: dict[str, Any] = {}
    searches = {size: _search_ms(size) for size in _sizes("ZHIYIN_BENCH_CATALOGUES", "10000,100000")}
    smallest = min(searches)
    for size, milliseconds in searches.items():
        figures[f"searches of a list ms, {size} items"] = round(milliseconds, 3)
        ratios[f"searches, {size} items / {smallest}"] = round(milliseconds / searches[smallest], 2)
    with_sequence = os.environ.get("ZHIYIN_BENCH_SEQUENCE", "0") == "1"
    trainings: dict[int, float] = {}
    for events in _sizes("ZHIYIN_BENCH_RECORDS", "20000,200000"):
        trainings[events], figures[f"training, {events} events"] = _training(events, with_sequence)
        ratios[f"training, {events} events / {min(trainings)}"] = round(
            trainings[events] / trainings[min(trainings)], 2
        )
    figures["with sequence model"] = with_sequence
    return {"ratios": ratios, "figures": figures}


def _sizes(variable: str, default: str) -> list[int]:
    return sorted(int(part) for part in os.environ.get(variable, default).split(",") if part.strip())


def _search_ms(size: int) -> float:
    vectors, queries = _clustered(size, seed=1), _clustered(_QUERIES * _ROUNDS, seed=2)
    index = SpaceIndex(Geometry(_DIMENSIONS, vectors.mean(axis=0), 1))
    index.apply(1, np.arange(size), vectors, np.empty(0, dtype=np.int64))
    index.add_graph()
    while index.graph_backlog:
        index.absorb(1024)
    times = []
    for start in range(0, len(queries), _QUERIES):
        asked = [IndexQuery(_HITS, query) for query in queries[start : start + _QUERIES]]
        began = time.perf_counter()
        index.search(asked)
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times)


def _clustered(count: int, seed: int) -> NDArray[np.float32]:
    random = np.random.default_rng(seed)
    centres = np.random.default_rng(0).standard_normal((400, _DIMENSIONS)).astype(np.float32)
    vectors = centres[random.integers(0, len(centres), count)]
    vectors = vectors + random.standard_normal((count, _DIMENSIONS)).astype(np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), dtype=np.float32)


def _training(events: int, with_sequence: bool) -> tuple[float, dict[str, Any]]:
    """CPU seconds of this process, which other work on the machine disturbs least; and what came out."""
    dataset, vectors = _record(events)
    settings = TrainingSettings(sequence=with_sequence)
    began, cpu = time.monotonic(), time.process_time()
    trained = train(dataset, vectors, "growth", "default", settings)
    seconds = time.process_time() - cpu
    return seconds, {
        "users": len(dataset.user_ids),
        "items": len(dataset.items),
        "cpu_s": round(seconds, 1),
        "wall_s": round(time.monotonic() - began, 1),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        "serves": trained.choice.best.name,
    }


def _record(events: int) -> tuple[Dataset, NDArray[np.float32]]:
    """Users of two topics each who walk through them, item after item; a fifth of the steps go anywhere in them."""
    random = np.random.default_rng(7)
    users, items = events // _EVENTS_PER_USER, max(events // 16, 200)
    topics = max(items // 60, 2)
    centres = random.standard_normal((topics, _TEXT_DIMENSIONS))
    vectors = centres[np.arange(items) % topics] + 0.7 * random.standard_normal((items, _TEXT_DIMENSIONS))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    known = [Item(id=f"i{n}", title=f"item {n}", categories=[f"topic {n % topics}"], prior=0.5) for n in range(items)]
    rows = EventRows({item.id: number for number, item in enumerate(known)})
    per_topic = items // topics
    for user in range(users):
        own = random.integers(0, topics, 2)
        place = int(random.integers(0, per_topic))
        start = 1.7e9 + float(random.uniform(0, 3e7))
        for step in range(_EVENTS_PER_USER):
            place = place + 1 if random.random() < 0.8 else int(random.integers(0, per_topic))
            item = int(own[random.integers(0, 2)]) + topics * (place % per_topic)
            rows.add(user, f"i{item}", pb.EVENT_TYPE_PURCHASE, None, start + 3600.0 * step)
    return Dataset(tuple(known), tuple(f"u{n}" for n in range(users)), {}, rows.events()), vectors.astype(np.float32)
