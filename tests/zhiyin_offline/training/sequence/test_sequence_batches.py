"""Every event is learned from once an epoch, whatever the length of its history."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("torch", reason="the extra `export` (PyTorch) is not installed")

from zhiyin_offline.training.sequence.batches import TrainingSequences


@given(
    st.lists(st.integers(0, 60), min_size=1, max_size=30), st.integers(1, 20), st.integers(1, 200), st.integers(0, 5)
)
def test_an_epoch_has_every_target_once(lengths: list[int], max_length: int, positions: int, seed: int) -> None:
    numbers = np.split(np.arange(sum(lengths), dtype=np.int32), np.cumsum(lengths)[:-1])
    sequences = TrainingSequences(numbers, max_length, positions, user_balance=0.5)
    batches = sequences.epoch(np.random.default_rng(seed)) if len(sequences) else []
    targets = np.concatenate([batch.targets[batch.targets >= 0] for batch in batches] or [np.empty(0, np.int64)])
    assert sorted(targets.tolist()) == sorted(int(i) for part in numbers for i in part[1:])
    for batch in batches:
        valid = batch.targets >= 0
        assert (batch.targets[valid] == batch.inputs[valid] + 1).all()  # sequences count up
        assert (batch.weights[~valid] == 0).all()
        assert (batch.weights[valid] > 0).all()
        assert batch.inputs.shape[1] <= max_length
        assert batch.inputs.size <= max(positions, max_length)
    if batches:
        assert sum(batch.weights.sum() for batch in batches) == pytest.approx(len(batches), rel=1e-4)


def test_balanced_users_weigh_the_same() -> None:
    numbers = [np.arange(3, dtype=np.int32), np.arange(11, dtype=np.int32)]
    (batch,) = TrainingSequences(numbers, 50, 1_000, user_balance=1.0).epoch(np.random.default_rng(0))
    assert batch.weights.sum(1) == pytest.approx([0.5, 0.5])
