"""Data sets for tests: made by hand, or generated with tastes that words show too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ranking_service.users.event_types import strength
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin_offline.evaluation.dataset import Dataset, Events

PURCHASE, RATING, SEARCH = pb.EVENT_TYPE_PURCHASE, pb.EVENT_TYPE_RATING, pb.EVENT_TYPE_SEARCH
Row = tuple[int, int, float]
"""User number, item number, time: a purchase."""


def purchases(rows: Sequence[Row], item_count: int, categories: Sequence[Sequence[str]] = ()) -> Dataset:
    """Purchases, which may come in any order."""
    return recorded([(user, item, time, PURCHASE, None) for user, item, time in rows], item_count, categories)


def recorded(
    rows: Sequence[tuple[int, int, float, int, float | None]], item_count: int, categories: Sequence[Sequence[str]] = ()
) -> Dataset:
    """Events of any type: user number, item number (-1: none), time, type, value."""
    rows = sorted(rows, key=lambda row: row[2])
    items = tuple(
        Item(id=f"i{number}", title=f"title {number}", categories=categories[number] if categories else [])
        for number in range(item_count)
    )
    users = max((row[0] for row in rows), default=-1) + 1
    events = Events(
        np.array([row[0] for row in rows], dtype=np.int32),
        np.array([row[1] for row in rows], dtype=np.int32),
        np.array([row[3] for row in rows], dtype=np.int16),
        np.array([np.nan if row[4] is None else row[4] for row in rows], dtype=np.float64),
        np.array([row[2] for row in rows], dtype=np.float64),
        np.array([strength(row[3], row[4]) for row in rows], dtype=np.float32),
        np.full(len(rows), -1, dtype=np.int32),
    )
    return Dataset(items, tuple(f"u{number}" for number in range(users)), {}, events)


def generated(seed: int = 0, users: int = 150, items: int = 90, topics: int = 6) -> tuple[Dataset, NDArray[np.float32]]:
    """Users of one topic each who mostly buy within it, and vectors that tell the topic of an item."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, topics, items)
    rows: list[Row] = []
    for user in range(users):
        own = rng.integers(0, topics)
        weight = np.where(topic == own, 12.0, 1.0) / (1 + np.arange(items) % 7)
        bought = rng.choice(items, int(rng.integers(4, 12)), replace=False, p=weight / weight.sum())
        rows += [(user, int(item), float(rng.uniform(0, 1000))) for item in bought]
    centres = rng.standard_normal((topics, 16))
    vectors = centres[topic] + 0.5 * rng.standard_normal((items, 16))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return purchases(rows, items, [[f"topic {t}"] for t in topic]), vectors.astype(np.float32)


def renumbered(
    dataset: Dataset, vectors: NDArray[np.float32], seed: int
) -> tuple[Dataset, NDArray[np.float32], NDArray[np.int32]]:
    """The same world with other ids and another order of the catalogue, and the new number of each old item."""
    count = len(dataset.items)
    place = np.random.default_rng(seed).permutation(count).astype(np.int32)
    items: list[Item] = [Item()] * count
    for number, item in enumerate(dataset.items):
        new = Item()
        new.CopyFrom(item)
        new.id = f"n{place[number]}"
        items[place[number]] = new
    events = dataset.events
    moved = replace(events, item=place[events.item])  # every event has an item here
    shuffled = np.empty_like(vectors)
    shuffled[place] = vectors
    return Dataset(tuple(items), dataset.user_ids, dataset.users, moved), shuffled, place
