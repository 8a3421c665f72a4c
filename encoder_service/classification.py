"""Labels for texts from a few words on each label, and better from a few examples; pure.

A label's prototype is the mean of its descriptions, drawn towards the mean of its examples by n / (n + 16), n being
their number (shrinkage as in James-Stein: eight examples alone are a worse prototype than three descriptions). Examples
are texts of the kind to be classified and descriptions are not; what separates the two kinds, the mean difference
over the labels that have examples, is taken out before they are mixed.

Then the mean of all prototypes is subtracted from each and the rest brought to length 1 (centring on the label set).
Sentence encoders put all texts into a narrow cone (between unlike texts, E5 has cosines above .7), and what sets labels
apart is in the rest. Without centring, a label near the axis of the cone attracts everything; with it the scale of the
similarities, and so the temperature, is nearly the same for any number and kind of labels. Texts are not centred on the
labels: a text is no description, and doing so costs five points of accuracy on news titles. They are centred on the
examples, where there are some, as far as these cover the labels.

Probabilities are a softmax of text . direction over a temperature: the one that makes the examples, each left out in
turn, most probable (Guo et al. 2017, On Calibration of Modern Neural Networks), held near the default by a log-normal
prior; the default itself where there are too few.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Fitted on titles that no figure is reported on; docs/decisions/0041 has the range over data sets and label sets.
DEFAULT_TEMPERATURE = 0.035
MIN_CALIBRATION_EXAMPLES = 16
_MAX_CALIBRATION_EXAMPLES = 256
_EXAMPLES_AS_GOOD_AS_DESCRIPTIONS = 16.0
# Standard deviation of the best temperature's logarithm over data sets.
_PRIOR_LOG_SD = 0.3
_SEARCHED = DEFAULT_TEMPERATURE * np.geomspace(0.25, 4.0, 65)
_EPSILON = 1e-9


@dataclass(frozen=True)
class LabelVectors:
    """What is known of one label.

    Attributes:
        descriptions: [1 or more, dimensions], distinct texts.
        examples: [0 or more, dimensions], distinct texts.
    """

    descriptions: NDArray[np.float32]
    examples: NDArray[np.float32]


@dataclass(frozen=True)
class LabelScores:
    """How well each label fits each text.

    Attributes:
        probabilities: [texts, labels]; each row sums to 1.
        similarities: [texts, labels], cosines in [-1, 1]; ordered as the probabilities within a row.
    """

    probabilities: NDArray[np.float64]
    similarities: NDArray[np.float64]


@dataclass(frozen=True)
class LabelClassifier:
    """Ready to score texts.

    Attributes:
        directions: [labels, dimensions], length 1; zero for a label that equals the mean of all.
        offset: [dimensions], subtracted from texts.
        temperature: Above 0.
        calibration_examples: How many examples the temperature was fitted on; 0: it is the default.
    """

    directions: NDArray[np.float64]
    offset: NDArray[np.float64]
    temperature: float
    calibration_examples: int

    def score(self, texts: NDArray[np.float32]) -> LabelScores:
        """Scores texts, each for itself.

        Args:
            texts: [texts, dimensions].
        """
        moved = _unit(texts.astype(np.float64)) - self.offset
        projections = moved @ self.directions.T
        lengths = np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), _EPSILON)
        return LabelScores(_softmax(projections / self.temperature), np.clip(projections / lengths, -1.0, 1.0))


def fit_labels(labels: Sequence[LabelVectors]) -> LabelClassifier:
    """Makes a classifier of two labels or more. Milliseconds; up to half a second with 256 labels of many examples."""
    described = np.stack([_unit(_unit(label.descriptions.astype(np.float64)).mean(axis=0)) for label in labels])
    examples = [_unit(label.examples.astype(np.float64)) for label in labels]
    sums = np.stack([own.sum(axis=0) for own in examples])
    counts = np.array([len(own) for own in examples])
    directions, offset = _directions(described, sums, counts)
    temperature, used = DEFAULT_TEMPERATURE, 0
    if counts.sum() >= MIN_CALIBRATION_EXAMPLES and (counts > 0).sum() >= 2:
        projections, truth = _leave_one_out(described, examples, sums, counts)
        temperature, used = fit_temperature(projections, truth), len(truth)
    return LabelClassifier(directions, offset, temperature, used)


def fit_temperature(projections: NDArray[np.float64], truth: NDArray[np.int64]) -> float:
    """The most probable temperature.

    Args:
        projections: [examples, labels], of texts that had no part in the labels' directions.
        truth: [examples], the index of the right label.
    """
    rows = np.arange(len(truth))

    def loss(temperature: float) -> float:
        right = _softmax(projections / temperature)[rows, truth]
        surprise = -np.log(np.maximum(right, 1e-12)).sum()
        return float(surprise + np.log(temperature / DEFAULT_TEMPERATURE) ** 2 / (2 * _PRIOR_LOG_SD**2))

    return float(min(_SEARCHED, key=loss))


def _directions(
    described: NDArray[np.float64], sums: NDArray[np.float64], counts: NDArray[np.int64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The labels' directions and what to subtract from texts.

    Args:
        described: [labels, dimensions], length 1.
        sums: [labels, dimensions], of each label's examples.
        counts: [labels], of examples.
    """
    has = counts > 0
    if not has.any():
        return _unit(described - described.mean(axis=0)), np.zeros(described.shape[1])
    exemplified = _unit(sums[has])
    kinds_apart = (exemplified - described[has]).mean(axis=0)
    prototypes = described + kinds_apart
    weight = counts[has] / (counts[has] + _EXAMPLES_AS_GOOD_AS_DESCRIPTIONS)
    prototypes[has] += weight[:, None] * (exemplified - prototypes[has])
    mean = prototypes.mean(axis=0)
    # Examples of a few labels say little about where texts lie on the whole: squared, so that they count for little.
    return _unit(prototypes - mean), has.mean() ** 2 * mean


def _leave_one_out(
    described: NDArray[np.float64],
    examples: Sequence[NDArray[np.float64]],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Projections of each example, or of evenly chosen ones, on directions made without it; and its label."""
    where = [(label, i) for label, own in enumerate(examples) for i in range(len(own))]
    step = max(1, -(-len(where) // _MAX_CALIBRATION_EXAMPLES))
    projections, truth = [], []
    for label, i in where[::step]:
        left_out = examples[label][i]
        sums_without, counts_without = sums.copy(), counts.copy()
        sums_without[label] -= left_out
        counts_without[label] -= 1
        directions, offset = _directions(described, sums_without, counts_without)
        projections.append(directions @ (left_out - offset))
        truth.append(label)
    return np.stack(projections), np.array(truth)


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows at length 1; what is no longer than rounding becomes zero."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.where(lengths > _EPSILON, rows / np.maximum(lengths, _EPSILON), 0.0)


def _softmax(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    normalised: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return normalised
