"""A small world whose next item can be predicted: topics follow one another, and an item tells its topic."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

TOPICS, ITEMS_OF_TOPIC, USERS = 12, 5, 240
ITEMS = TOPICS * ITEMS_OF_TOPIC


@dataclass(frozen=True)
class World:
    """Sequences over items whose topic is item // ITEMS_OF_TOPIC; after topic t comes the topic next[t]."""

    sequences: list[NDArray[np.int32]]
    text: NDArray[np.float32]
    next_topic: NDArray[np.int64]
    cold: NDArray[np.int64]


@pytest.fixture(scope="session")
def world() -> World:
    generator = np.random.default_rng(5)
    cycle = generator.permutation(TOPICS)
    next_topic = np.empty(TOPICS, np.int64)
    next_topic[cycle] = np.roll(cycle, -1)
    cold = np.arange(TOPICS) * ITEMS_OF_TOPIC  # one a topic, in nobody's history
    sequences = []
    for _ in range(USERS):
        topic, items = int(generator.integers(TOPICS)), []
        for _ in range(int(generator.integers(4, 14))):
            items.append(topic * ITEMS_OF_TOPIC + 1 + int(generator.integers(ITEMS_OF_TOPIC - 1)))
            topic = int(next_topic[topic]) if generator.random() < 0.95 else int(generator.integers(TOPICS))
        sequences.append(np.array(items, np.int32))
    meaning = generator.standard_normal((TOPICS, 24))
    text = np.repeat(meaning, ITEMS_OF_TOPIC, axis=0) + 0.4 * generator.standard_normal((ITEMS, 24))
    text -= text.mean(0)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return World(sequences, text.astype(np.float32), next_topic, cold)


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    torch: Any = pytest.importorskip("torch", reason="the extra `export` (PyTorch) is not installed")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
