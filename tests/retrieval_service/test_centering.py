"""The rule of the corpus mean: when it is fixed and renewed, and what it does to vectors."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from retrieval_service.centering import MIN_VECTORS, CenteringState, after_write, transform
from tests.retrieval_service.fake_encoder_server import DIMENSIONS, embed

EMPTY = np.empty((0, DIMENSIONS), dtype=np.float32)
FRESH = CenteringState(0, np.zeros(DIMENSIONS), None, 0, 0)


def test_three_items_rank_by_what_they_say() -> None:
    items = np.stack([embed("最新上映的电影"), embed("周杰伦的新专辑"), embed("云南丽江的旅游攻略")])
    state, renewed = after_write(FRESH, items, EMPTY)
    assert (state.mean, renewed) == (None, False)
    scores = transform(items, state.mean) @ transform(embed("喜欢看电影")[None], state.mean)[0]
    assert scores.argmax() == 0


def test_one_item_or_equal_items_do_not_break_anything() -> None:
    same = np.stack([embed("the same")] * 40)
    state, renewed = after_write(FRESH, same, EMPTY)
    assert renewed
    assert not transform(same, state.mean).any()  # no direction is left: score 0, and the ids decide
    assert np.isfinite(transform(np.stack([embed("another")]), state.mean)).all()


def test_centring_spreads_cosines_that_lay_in_a_narrow_cone() -> None:
    vectors = np.stack([embed(f"word{i} other{i % 7}") for i in range(200)])
    state, renewed = after_write(FRESH, vectors, EMPTY)
    assert renewed
    raw, centred = vectors @ vectors.T, (lambda v: v @ v.T)(transform(vectors, state.mean))
    others = ~np.eye(200, dtype=bool)
    assert raw[others].min() > 0.7
    assert abs(float(centred[others].mean())) < 0.05


def test_the_mean_settles_and_moves_only_when_the_corpus_does() -> None:
    state, renewals = FRESH, 0
    for i in range(400):
        state, renewed = after_write(state, embed(f"film{i} story{i % 11}")[None], EMPTY)
        renewals += renewed
    assert 1 <= renewals <= 12
    epoch = state.epoch
    for i in range(400, 800):
        state, _ = after_write(state, embed(f"film{i} story{i % 11}")[None], EMPTY)
    assert state.epoch == epoch  # more of the same: the mean is good enough
    for i in range(1500):
        state, _ = after_write(state, embed(f"quite another world of music{i} music music")[None], EMPTY)
    assert state.epoch > epoch


@settings(max_examples=40, deadline=None)
@given(sizes=st.lists(st.tuples(st.integers(0, 12), st.floats(0, 1)), max_size=25), seed=st.integers(0, 99))
def test_the_sum_stays_that_of_the_vectors_and_a_replay_decides_alike(
    sizes: list[tuple[int, float]], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    states = []
    for _ in range(2):
        rng = np.random.default_rng(seed)
        state, kept = FRESH, np.empty((0, DIMENSIONS), dtype=np.float32)
        for count, share in sizes:
            added = rng.standard_normal((count, DIMENSIONS)).astype(np.float32)
            removed, kept = kept[: int(len(kept) * share)], kept[int(len(kept) * share) :]
            state, renewed = after_write(state, added, removed)
            kept = np.concatenate([kept, added])
            assert state.count == len(kept)
            np.testing.assert_allclose(state.total, kept.sum(axis=0), atol=1e-3)
            assert not renewed or len(kept) >= MIN_VECTORS
        states.append(state)
    assert states[0].epoch == states[1].epoch
    assert (states[0].mean is None) == (states[1].mean is None)
    if states[0].mean is not None and states[1].mean is not None:
        np.testing.assert_array_equal(states[0].mean, states[1].mean)
