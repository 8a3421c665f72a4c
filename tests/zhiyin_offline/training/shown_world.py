"""A record that knows what was shown: everybody has a taste, and acts on what is shown to them the more it fits."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin_offline.evaluation.dataset import Dataset, EventRows

TOPICS, ITEMS, USERS, DAYS, LIST = 6, 300, 260, 12, 14
FINGERPRINT = "topics"
DAY = 86_400.0
START = 1_750_000_000.0


@dataclass(frozen=True)
class ShownWorld:
    """The record, raw item vectors, and the true chance that each user acts on each item, shape (users, items)."""

    dataset: Dataset
    vectors: NDArray[np.float32]
    chances: NDArray[np.float64]


def shown_world(
    seed: int = 0, *, impressions: bool = True, planted: Sequence[tuple[int, int, float]] = ()
) -> ShownWorld:
    """Everybody is shown a list a day, drawn evenly, and acts on nothing else.

    Args:
        seed: Of everything drawn.
        impressions: Whether they are recorded.
        planted: Likes besides: user, item, time.
    """
    random = np.random.default_rng(seed)
    centres = random.standard_normal((TOPICS, 12))
    topic = np.arange(ITEMS) % TOPICS
    vectors = _unit(centres[topic] + 0.7 * random.standard_normal((ITEMS, 12)))
    tastes = _unit(centres[random.integers(0, TOPICS, USERS)] + 0.7 * random.standard_normal((USERS, 12)))
    chances = 1.0 / (1.0 + np.exp(3.6 - 4.5 * tastes @ vectors.T))
    items = []
    for number in range(ITEMS):
        item = Item(id=f"i{number}", title=f"topic{topic[number]} thing{number}", categories=[f"c{topic[number]}"])
        item.created_at.FromSeconds(int(START) - 400 * 86_400 + number)
        items.append(item)
    rows = EventRows({item.id: number for number, item in enumerate(items)})
    for user in range(USERS):
        done: set[int] = set()
        for day in range(DAYS):
            time = START + day * DAY + float(random.uniform(0, 0.8 * DAY))
            open_items = np.setdiff1d(np.arange(ITEMS), list(done))
            for place, number in enumerate(random.choice(open_items, LIST, replace=False).tolist()):
                if impressions:
                    rows.add(user, f"i{number}", pb.EVENT_TYPE_IMPRESSION, None, time)
                if random.random() < chances[user, number]:
                    rows.add(user, f"i{number}", pb.EVENT_TYPE_LIKE, None, time + 30.0 * (place + 1))
                    done.add(number)
    for user, number, time in planted:
        rows.add(user, f"i{number}", pb.EVENT_TYPE_LIKE, None, time)
    users = tuple(f"u{user}" for user in range(USERS))
    return ShownWorld(Dataset(tuple(items), users, {}, rows.events()), vectors.astype(np.float32), chances)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
