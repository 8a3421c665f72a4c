"""The rule that gives labels to texts, on vectors of its own."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from encoder_service.classification import (
    MIN_CALIBRATION_EXAMPLES,
    LabelVectors,
    default_temperature,
    fit_labels,
    fit_temperature,
    label_directions,
    leave_one_out,
)

DIMENSIONS = 12
SPREAD = 0.4
USUAL = 0.035  # temperature


def around(center: np.ndarray, count: int, random: np.random.Generator, spread: float = SPREAD) -> np.ndarray:
    rows = center + spread * random.normal(size=(count, DIMENSIONS))
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


def centers(labels: int, random: np.random.Generator) -> np.ndarray:
    """In a cone, as texts of an encoder are."""
    axis = np.zeros(DIMENSIONS)
    axis[0] = 3
    return axis + random.normal(size=(labels, DIMENSIONS))


@st.composite
def label_sets(draw: st.DrawFn) -> tuple[list[LabelVectors], np.ndarray]:
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = draw(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 6)), min_size=2, max_size=7))
    labels = [
        LabelVectors(around(center, described, random), around(center, examples, random))
        for center, (described, examples) in zip(centers(len(counts), random), counts, strict=True)
    ]
    return labels, around(centers(1, random)[0], 5, random)


@settings(max_examples=60, deadline=None)
@given(label_sets(), st.randoms(use_true_random=False))
def test_the_order_of_labels_and_texts_does_not_matter(case, shuffle) -> None:
    labels, texts = case
    order, rows = list(range(len(labels))), list(range(len(texts)))
    shuffle.shuffle(order)
    shuffle.shuffle(rows)
    straight = fit_labels(labels, USUAL).score(texts)
    shuffled = fit_labels([labels[i] for i in order], USUAL).score(texts[rows])
    np.testing.assert_allclose(shuffled.probabilities, straight.probabilities[rows][:, order], atol=1e-6)
    np.testing.assert_allclose(shuffled.similarities, straight.similarities[rows][:, order], atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(label_sets())
def test_probabilities_are_shares_ordered_as_the_similarities(case) -> None:
    labels, texts = case
    classifier = fit_labels(labels, USUAL)
    scores = classifier.score(texts)
    assert np.all((scores.probabilities >= 0) & (scores.probabilities <= 1))
    np.testing.assert_allclose(scores.probabilities.sum(axis=1), 1)
    assert np.all(np.abs(scores.similarities) <= 1)
    assert classifier.temperature > 0
    by_similarity = np.take_along_axis(scores.probabilities, np.argsort(scores.similarities, axis=1), axis=1)
    assert np.all(np.diff(by_similarity, axis=1) >= -1e-12)


@settings(max_examples=60, deadline=None)
@given(label_sets(), st.integers(2, 4))
def test_saying_everything_again_changes_nothing(case, times: int) -> None:
    """All descriptions of a label repeated alike: the label keeps its direction, and texts alone keep their scores."""
    labels, texts = case
    again = [LabelVectors(np.tile(label.descriptions, (times, 1)), label.examples) for label in labels]
    np.testing.assert_allclose(fit_labels(again, USUAL).directions, fit_labels(labels, USUAL).directions, atol=1e-6)
    together = fit_labels(labels, USUAL).score(texts).probabilities
    alone = np.concatenate([fit_labels(labels, USUAL).score(texts[i : i + 1]).probabilities for i in range(len(texts))])
    np.testing.assert_allclose(alone, together, atol=1e-9)


def test_labels_that_say_the_same_share_evenly() -> None:
    random = np.random.default_rng(1)
    same = around(centers(1, random)[0], 2, random)
    scores = fit_labels([LabelVectors(same, same[:0])] * 4, USUAL).score(around(centers(1, random)[0], 3, random))
    np.testing.assert_allclose(scores.probabilities, 0.25)
    np.testing.assert_allclose(scores.similarities, 0)


@pytest.mark.parametrize("labels", [2, 6])
def test_examples_help_the_more_the_more_there_are(labels: int) -> None:
    """Descriptions that say little; every step of examples is right more often over many drawn label sets."""
    right = {0: 0.0, 2: 0.0, 8: 0.0, 40: 0.0}
    for seed in range(30):
        random = np.random.default_rng(seed)
        middles = centers(labels, random)
        described = [around(middle, 1, random, spread=2.0) for middle in middles]
        examples = [around(middle, 40, random, spread=1.0) for middle in middles]
        texts = np.concatenate([around(middle, 20, random, spread=1.0) for middle in middles])
        truth = np.repeat(np.arange(labels), 20)
        for count in right:
            known = [LabelVectors(d, e[:count]) for d, e in zip(described, examples, strict=True)]
            right[count] += float((fit_labels(known, USUAL).score(texts).probabilities.argmax(axis=1) == truth).mean())
    assert right[0] < right[2] < right[8] < right[40]


def test_few_examples_leave_the_default_temperature_and_many_fit_it() -> None:
    random = np.random.default_rng(3)
    middles = centers(4, random)

    def known(examples: int, spread: float) -> list[LabelVectors]:
        return [LabelVectors(around(m, 2, random), around(m, examples, random, spread)) for m in middles]

    few = fit_labels(known(MIN_CALIBRATION_EXAMPLES // 4 - 1, 0.1), USUAL)
    assert (few.temperature, few.calibration_examples) == (USUAL, 0)
    clear, noisy = fit_labels(known(40, 0.1), USUAL), fit_labels(known(40, 3.0), USUAL)
    assert clear.calibration_examples == noisy.calibration_examples == 160
    assert clear.temperature < noisy.temperature


def test_single_examples_do_not_calibrate() -> None:
    random = np.random.default_rng(6)
    labels = [
        LabelVectors(around(m, 2, random), around(m, 1, random)) for m in centers(MIN_CALIBRATION_EXAMPLES, random)
    ]
    assert fit_labels(labels, USUAL).calibration_examples == 0


def test_examples_of_one_label_alone_move_nothing() -> None:
    """They show what separates texts from descriptions as much as what sets the label apart: nobody can tell."""
    random = np.random.default_rng(4)
    middles = centers(3, random)
    described = [around(middle, 2, random) for middle in middles]
    none = described[0][:0]
    one = [LabelVectors(d, around(middles[0], 20, random) if i == 0 else none) for i, d in enumerate(described)]
    plain = fit_labels([LabelVectors(d, none) for d in described], USUAL)
    np.testing.assert_allclose(fit_labels(one, USUAL).directions, plain.directions, atol=1e-6)
    assert fit_labels(one, USUAL).calibration_examples == 0


@pytest.mark.parametrize("true_temperature", [0.02, 0.035, 0.09])
def test_the_temperature_that_made_the_answers_is_found(true_temperature: float) -> None:
    random = np.random.default_rng(5)
    projections = 0.1 * random.normal(size=(4000, 5))
    powers = np.exp(projections / true_temperature)
    shares = powers / powers.sum(axis=1, keepdims=True)
    truth = np.array([random.choice(5, p=row) for row in shares])
    assert fit_temperature(projections, truth, USUAL)[0] == pytest.approx(true_temperature, rel=0.1)


@settings(max_examples=40, deadline=None)
@given(label_sets(), st.sampled_from([2.0, 8.0, 32.0]))
def test_leaving_one_out_is_what_it_says(case, worth: float) -> None:
    """Against the plain way: the directions made anew without each example."""
    labels, _ = case
    described = np.stack([label.descriptions.mean(axis=0).astype(np.float64) for label in labels])
    described /= np.linalg.norm(described, axis=1, keepdims=True)
    sums = np.stack([label.examples.sum(axis=0).astype(np.float64) for label in labels])
    counts = np.array([len(label.examples) for label in labels])
    several = np.flatnonzero(counts >= 2)
    if not len(several):
        return
    truth = np.repeat(several, counts[several])
    examples = np.concatenate([labels[i].examples for i in several]).astype(np.float64)
    plain = []
    for example, label in zip(examples, truth, strict=True):
        fewer = np.eye(len(labels), dtype=int)[label]
        directions, offset = label_directions(described, sums - np.outer(fewer, example), counts - fewer, worth)
        plain.append(directions @ (example - offset))
    found = leave_one_out(described, sums, counts, worth, examples, truth)
    np.testing.assert_allclose(found, np.stack(plain), atol=1e-5)


def test_the_default_temperature_grows_with_how_far_apart_a_model_puts_texts() -> None:
    random = np.random.default_rng(7)
    narrow, wide = around(centers(1, random)[0], 20, random, 0.2), around(centers(1, random)[0], 20, random, 2.0)
    assert 0 < default_temperature(narrow) < default_temperature(wide)
    assert default_temperature(np.repeat(narrow[:1], 3, axis=0)) > 0
    assert default_temperature(2 * wide) == pytest.approx(default_temperature(wide))
