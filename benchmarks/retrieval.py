"""What a search costs: graph and exact plans, filters, the worker's socket, items from memory and from the store.

Vectors are synthetic (clusters, 384 dimensions); every comparison runs side by side, round after round, so trust the
ratios more than the figures.

Environment:
    ZHIYIN_BENCH_ITEMS: items in the index; default 20,000 (building the graph takes about 0.5 ms an item).
"""

from __future__ import annotations

import os
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pyroaring import BitMap

from retrieval_service import conversions, snapshot
from retrieval_service.item import Item, passage_hash
from retrieval_service.item_store import ItemStore
from retrieval_service.item_writes import ItemWrites
from retrieval_service.space_index import Geometry, IndexQuery, SpaceIndex
from retrieval_service.worker_client import IndexWorkerProcess
from retrieval_service.write_messages import EncodedPassage, UpsertBatch
from service_runtime.sql import sqlite_url

DIMENSIONS = 384
LIMIT = 10
QUERIES = 200
HYDRATED = 300
STORED = 3000
SELECTIVITIES = (0.5, 0.1, 0.01)


def run() -> dict[str, Any]:
    """Measures; returns ratios (side by side) and figures (of this machine)."""
    count = int(os.environ.get("ZHIYIN_BENCH_ITEMS", "20000"))
    vectors, queries = _clustered(count, seed=1), _clustered(QUERIES, seed=2)
    index = SpaceIndex(Geometry(DIMENSIONS, vectors.mean(axis=0), 1))
    nothing = np.empty(0, dtype=np.int64)
    index.apply(1, np.arange(count), vectors, nothing)
    started = time.monotonic()
    index.add_graph()
    while index.graph_backlog:
        index.absorb(1024)
    figures: dict[str, Any] = {
        "items": count,
        "dimensions": DIMENSIONS,
        "graph_build_us_per_item": round((time.monotonic() - started) / count * 1e6),
    }
    ratios: dict[str, float] = {}
    _measure_plans(index, queries, count, ratios, figures)
    with tempfile.TemporaryDirectory() as folder:
        _measure_worker(index, queries, Path(folder), ratios, figures)
        _measure_store(vectors, Path(folder), ratios, figures)
    return {"ratios": {name: round(value, 3) for name, value in ratios.items()}, "figures": figures}


def _measure_plans(
    index: SpaceIndex, queries: NDArray[np.float32], count: int, ratios: dict[str, float], figures: dict[str, Any]
) -> None:
    rng = np.random.default_rng(3)
    allowed: dict[str, BitMap | None] = {"all": None}
    for share in SELECTIVITIES:
        allowed[f"{share:.0%}"] = BitMap(np.flatnonzero(rng.random(count) < share).astype(np.uint32))
    calls: dict[str, Callable[[NDArray[np.float32]], object]] = {}
    for name, bitmap in allowed.items():
        recalls = []
        plan = ""
        for query in queries:
            fast, exact = (
                index.search([IndexQuery(LIMIT, query, allowed=bitmap, exact=exact)])[0][0] for exact in (False, True)
            )
            truth = set(exact.numbers[:LIMIT].tolist())
            recalls.append(len(truth & set(fast.numbers[:LIMIT].tolist())) / max(len(truth), 1))
            plan = fast.plan.name
        figures[f"recall@{LIMIT}, filter {name}"] = round(statistics.mean(recalls), 4)
        figures[f"plan, filter {name}"] = plan
        calls[f"filter {name}"] = lambda q, b=bitmap: index.search([IndexQuery(LIMIT, q, allowed=b)])  # type: ignore[misc]
    calls["exact, filter all"] = lambda q: index.search([IndexQuery(LIMIT, q, exact=True)])
    seconds = _side_by_side(calls, queries)
    for name, value in seconds.items():
        figures[f"search us, {name}"] = round(value * 1e6)
        if name != "filter all":
            ratios[f"{name} / graph without filter"] = value / seconds["filter all"]


def _measure_worker(
    index: SpaceIndex, queries: NDArray[np.float32], folder: Path, ratios: dict[str, float], figures: dict[str, Any]
) -> None:
    started = time.monotonic()
    info = snapshot.write(index, folder)
    figures["snapshot_write_s"] = round(time.monotonic() - started, 3)
    worker = IndexWorkerProcess()
    try:
        started = time.monotonic()
        frame = {"op": "load", "key": "1", "path": str(info.path), "dimensions": DIMENSIONS, "normalize": True}
        worker.call(frame)
        figures["snapshot_load_s"] = round(time.monotonic() - started, 3)
        asked = {"limit": LIMIT, "vector": 0, "examples": [], "filter": -1, "denied": [], "exact": False}
        search = {"op": "search", "key": "1", "queries": [asked]}
        seconds = _side_by_side(
            {
                "in process": lambda q: index.search([IndexQuery(LIMIT, q)]),
                "in worker": lambda q: worker.call(search, (q[None],)),
                "echo": lambda q: worker.call({"op": "ping"}),
            },
            queries,
        )
    finally:
        worker.close()
    ratios["search in the worker / in the process"] = seconds["in worker"] / seconds["in process"]
    figures |= {f"search us, {name}": round(value * 1e6) for name, value in seconds.items()}


def _measure_store(
    vectors: NDArray[np.float32], folder: Path, ratios: dict[str, float], figures: dict[str, Any]
) -> None:
    store = ItemStore(sqlite_url(folder / "items.sqlite3"))
    store.create_tables()
    with store.engine.begin() as connection:
        catalog = store.create_catalog(connection, "default", "")
    writes = ItemWrites(store, conversions.item_from_payload, conversions.item_to_payload)
    items = [
        Item(f"item-{i}", f"title {i}", "text " * 60, ("category",), {"price": float(i), "brand": f"b{i % 50}"})
        for i in range(STORED)
    ]
    started = time.monotonic()
    payloads: dict[str, bytes] = {}
    for start in range(0, STORED, 500):
        batch = UpsertBatch("default", tuple(items[start : start + 500]))
        encoded = {
            passage_hash(item.passage): EncodedPassage(vectors[start + i], False, "bench")
            for i, item in enumerate(batch.items)
        }
        with store.engine.begin() as connection:
            done = writes.commit_upsert(connection, catalog, batch, encoded, datetime.now(UTC))
        payloads |= {change.new.id: change.payload for change in done.items if change.new is not None}
    figures["items_committed_per_s, 500 a batch, without encoding"] = round(STORED / (time.monotonic() - started))
    ids = [f"item-{i * 7 % STORED}" for i in range(HYDRATED)]

    def read_store(_query: NDArray[np.float32]) -> object:
        with store.reading() as connection:
            return store.items(connection, catalog.catalog_id, ids)

    seconds = _side_by_side(
        {"store": read_store, "memory": lambda q: [payloads[item_id] for item_id in ids]}, vectors[:20]
    )
    store.close()
    figures |= {f"read {HYDRATED} items us, {name}": round(value * 1e6) for name, value in seconds.items()}
    ratios[f"{HYDRATED} items from the store / from memory"] = seconds["store"] / seconds["memory"]


def _side_by_side(
    calls: dict[str, Callable[[NDArray[np.float32]], object]], queries: NDArray[np.float32]
) -> dict[str, float]:
    """Median seconds of each call. They take turns, each with another query: none warms the caches of the next."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for i in range(len(queries)):
        for j, (name, call) in enumerate(calls.items()):
            query = queries[(i + 31 * j) % len(queries)]
            started = time.perf_counter()
            call(query)
            taken[name].append(time.perf_counter() - started)
    return {name: statistics.median(values) for name, values in taken.items()}


def _clustered(count: int, seed: int) -> NDArray[np.float32]:
    """Unit vectors around 200 centres in a narrow cone, as a text encoder gives them."""
    centres = np.random.default_rng(0).standard_normal((200, DIMENSIONS)).astype(np.float32)
    rng = np.random.default_rng(seed)
    own = rng.standard_normal((count, DIMENSIONS)).astype(np.float32)
    vectors = 2.0 + centres[rng.integers(0, 200, count)] + 0.8 * own
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors
