"""A small record whose next item can be predicted: everybody walks along one chain of items, a step or two at a time.

The titles tell whereabouts on the chain an item is, so texts help a little, transitions and sequences a lot.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from numpy.typing import NDArray

from retrieval_service.item import Item as RetrievalItem
from tests.retrieval_service.fake_encoder_server import embed
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin_offline.evaluation.dataset import Dataset, EventRows

ITEMS, USERS, STEPS = 60, 100, 8
START, HOUR = 1_750_000_000.0, 3_600.0
FINGERPRINT = "fake-space-1"
"""Of the vectors that the fake encoder of retrieval's tests makes."""


def chain_items(count: int = ITEMS) -> tuple[Item, ...]:
    """Items in the order of the chain; ten neighbours share a word."""
    made = []
    for number in range(count):
        item = Item(id=f"i{number}", title=f"place{number // 10} stop{number}", categories=[f"region {number // 20}"])
        item.language = "en"
        item.prior = 0.5
        item.created_at.FromSeconds(int(START) - 400 * 86_400 + number)
        made.append(item)
    return tuple(made)


def chain_world(seed: int = 0, users: int = USERS, noise: float = 0.1) -> Dataset:
    """Everybody likes eight items along the chain; a share of the steps goes anywhere."""
    random = np.random.default_rng(seed)
    items = chain_items()
    rows = EventRows({item.id: number for number, item in enumerate(items)})
    for user in range(users):
        place = int(random.integers(ITEMS))
        for step in range(STEPS):
            rows.add(user, f"i{place}", pb.EVENT_TYPE_LIKE, None, START + step * HOUR + user)
            jump = int(random.integers(ITEMS)) if random.random() < noise else place + 1 + int(random.integers(2))
            place = jump % ITEMS
    return Dataset(items, tuple(f"u{user}" for user in range(users)), {}, rows.events())


def chain_vectors(dataset: Dataset) -> NDArray[np.float32]:
    """Raw vectors as the fake encoder makes them of what retrieval sends it."""
    return np.stack([embed(RetrievalItem(item.id, item.title, item.text).passage) for item in dataset.items])


def short_sequence_training(monkeypatch: pytest.MonkeyPatch, steps: int = 20) -> None:
    """Lets trainings end early: what is tested is what becomes of a model, not how good it is."""
    torch = pytest.importorskip("torch", reason="the extra `export` (PyTorch) is not installed")
    torch.set_num_threads(1)
    from zhiyin_offline.training import sequence_step
    from zhiyin_offline.training.sequence.settings import SequenceSettings

    short = SequenceSettings(dimensions=32, layers=1, feed_forward=32, max_steps=steps, evaluate_every=steps // 2)
    learned = partial(sequence_step.train_sequence_model, settings=short)
    monkeypatch.setattr(sequence_step, "train_sequence_model", learned)
