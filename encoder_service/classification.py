"""Labels for texts from a few words on each label, and better from a few examples; pure.

A label's prototype is the mean of its descriptions, drawn towards the mean of its examples by n / (n + k), n being
their number (shrinkage as in James-Stein: eight examples alone are a worse prototype than three descriptions). k says
how many examples the descriptions are worth: 8, or what fits the examples best. Examples are texts of the kind to be
classified and descriptions are not; what separates the two kinds, the mean difference over the labels that have
examples, is taken out before they are mixed.

Then the mean of all prototypes is subtracted from each and the rest brought to length 1 (centring on the label set).
Sentence encoders put all texts into a narrow cone (between unlike texts, E5 has cosines above .7), and what sets labels
apart is in the rest. Without centring, a label near the axis of the cone attracts everything; with it the scale of the
similarities, and so the temperature, is nearly the same for any number and kind of labels. Texts are not centred on the
labels: a text is no description, and doing so costs five points of accuracy on news titles. They are centred on the
examples, where there are some, as far as these cover the labels.

Probabilities are a softmax of text . direction over a temperature (Guo et al. 2017, On Calibration of Modern Neural
Networks). With enough examples, k and the temperature are those that make the examples, each left out in turn, most
probable; log-normal priors hold both near their defaults, which serve where there are fewer. The default temperature
belongs to the model: it grows with how far apart the model puts unlike texts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# Fitted on titles that no figure is reported on; docs/decisions/0041-classify.md has the range over data and models.
_TEMPERATURE_PER_SPREAD = 0.0755
MIN_CALIBRATION_EXAMPLES = 16  # of labels that have two or more
_MAX_CALIBRATION_EXAMPLES = 256
_DEFAULT_DESCRIPTIONS_WORTH = 8.0
# Standard deviations of the logarithms of the best values over data sets and kinds of descriptions.
_TEMPERATURE_LOG_SD, _WORTH_LOG_SD = 0.3, 0.7
_TEMPERATURES = np.geomspace(0.25, 4.0, 33)  # times the default
_WORTHS = (2.0, 4.0, 8.0, 16.0, 32.0)
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
        descriptions_worth: How many examples the descriptions of a label count as.
        calibration_examples: On how many examples the two were fitted; 0: they are the defaults.
    """

    directions: NDArray[np.float64]
    offset: NDArray[np.float64]
    temperature: float
    descriptions_worth: float
    calibration_examples: int

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return self.directions.nbytes + self.offset.nbytes

    def score(self, texts: NDArray[np.float32]) -> LabelScores:
        """Scores texts, each for itself.

        Args:
            texts: [texts, dimensions].
        """
        moved = _unit(texts.astype(np.float64)) - self.offset
        projections = moved @ self.directions.T
        lengths = np.maximum(np.linalg.norm(moved, axis=1, keepdims=True), _EPSILON)
        return LabelScores(_softmax(projections / self.temperature), np.clip(projections / lengths, -1.0, 1.0))


def default_temperature(unlike_texts: NDArray[np.float32]) -> float:
    """The temperature of a model for labels without examples.

    Args:
        unlike_texts: [2 or more, dimensions], of texts on many subjects.
    """
    vectors = _unit(unlike_texts.astype(np.float64))
    count = len(vectors)
    cosine_of_two = ((vectors.sum(axis=0) ** 2).sum() - count) / (count * (count - 1))
    return _TEMPERATURE_PER_SPREAD * float(np.sqrt(max(1.0 - cosine_of_two, _EPSILON)))


def fit_labels(labels: Sequence[LabelVectors], usual_temperature: float) -> LabelClassifier:
    """Makes a classifier. Takes milliseconds; with 256 labels of many examples a fifth of a second.

    Args:
        labels: Two or more.
        usual_temperature: Of the model, see `default_temperature`.
    """
    described = np.stack([_unit(_unit(label.descriptions.astype(np.float64)).mean(axis=0)) for label in labels])
    examples = [_unit(label.examples.astype(np.float64)) for label in labels]
    sums = np.stack([own.sum(axis=0) for own in examples])
    counts = np.array([len(own) for own in examples])
    temperature, worth, used = usual_temperature, _DEFAULT_DESCRIPTIONS_WORTH, 0
    # Without its only example a label would stand alone against labels with theirs: that tells nothing of new texts.
    several = np.flatnonzero(counts >= 2)
    if counts[several].sum() >= MIN_CALIBRATION_EXAMPLES and len(several) >= 2:
        truth = np.repeat(several, counts[several])
        chosen = slice(None, None, -(-len(truth) // _MAX_CALIBRATION_EXAMPLES))  # evenly over the labels
        left_out, truth = np.concatenate([examples[label] for label in several])[chosen], truth[chosen]
        temperature, worth = _fit_to_examples(described, sums, counts, left_out, truth, usual_temperature)
        used = len(truth)
    directions, offset = label_directions(described, sums, counts, worth)
    return LabelClassifier(directions, offset, temperature, worth, used)


def fit_temperature(projections: NDArray[np.float64], truth: NDArray[np.int64], usual: float) -> tuple[float, float]:
    """The most probable temperature, and how improbable the truth is with it (negative log, prior included).

    Args:
        projections: [examples, labels], of texts that had no part in the labels' directions.
        truth: [examples], the index of the right label.
        usual: The middle of the prior.
    """
    rows = np.arange(len(truth))

    def loss(temperature: float) -> float:
        right = _softmax(projections / temperature)[rows, truth]
        surprise = -np.log(np.maximum(right, 1e-12)).sum()
        return float(surprise) + _prior_loss(temperature, usual, _TEMPERATURE_LOG_SD)

    found, temperature = min((loss(candidate), candidate) for candidate in usual * _TEMPERATURES)
    return float(temperature), found


def _fit_to_examples(
    described: NDArray[np.float64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    left_out: NDArray[np.float64],
    truth: NDArray[np.int64],
    usual_temperature: float,
) -> tuple[float, float]:
    """Temperature and worth of the descriptions."""
    fits = []
    for worth in _WORTHS:
        projections = leave_one_out(described, sums, counts, worth, left_out, truth)
        temperature, loss = fit_temperature(projections, truth, usual_temperature)
        fits.append((loss + _prior_loss(worth, _DEFAULT_DESCRIPTIONS_WORTH, _WORTH_LOG_SD), temperature, worth))
    _, temperature, worth = min(fits)
    return temperature, worth


def _prior_loss(value: float, usual: float, log_sd: float) -> float:
    return float(np.log(value / usual) ** 2 / (2 * log_sd**2))


def label_directions(
    described: NDArray[np.float64], sums: NDArray[np.float64], counts: NDArray[np.int64], worth: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The labels' directions and what to subtract from texts.

    Args:
        described: [labels, dimensions], length 1.
        sums: [labels, dimensions], of each label's examples.
        counts: [labels], of examples.
        worth: How many examples the descriptions of a label count as.
    """
    has = counts > 0
    if not has.any():
        return _unit(described - described.mean(axis=0)), np.zeros(described.shape[1])
    apart = _unit(sums) - described
    weights = counts / (counts + worth)
    kinds_apart = apart[has].mean(axis=0)
    prototypes = described + weights[:, None] * apart + (1 - weights[:, None]) * kinds_apart
    mean = prototypes.mean(axis=0)
    return _unit(prototypes - mean), _coverage(has) * mean


def leave_one_out(
    described: NDArray[np.float64],
    sums: NDArray[np.float64],
    counts: NDArray[np.int64],
    worth: float,
    left_out: NDArray[np.float64],
    truth: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Projections of examples on the directions made without each of them.

    Equal to calling `label_directions` for every example with its share taken out of `sums` and `counts`; but without
    an example only its own label's prototype moves freely, all others along one vector, so inner products are enough.

    Args:
        described, sums, counts, worth: As in `label_directions`.
        left_out: [examples, dimensions], length 1, of labels with two examples or more.
        truth: [examples], the label of each.

    Returns:
        [examples, labels].
    """
    rows, labels = np.arange(len(truth)), len(counts)
    has = counts > 0
    apart = _unit(sums) - described
    weights = counts / (counts + worth)
    kinds_apart = apart[has].mean(axis=0)
    prototypes = described + weights[:, None] * apart + (1 - weights[:, None]) * kinds_apart
    mean = prototypes.mean(axis=0)

    fewer = counts[truth] - 1
    apart_then = _unit(sums[truth] - left_out) - described[truth]
    shift = (apart_then - apart[truth]) / has.sum()
    weight_then = (fewer / (fewer + worth))[:, None]
    own_then = described[truth] + weight_then * apart_then + (1 - weight_then) * (kinds_apart + shift)
    others_move = (1 - weights).sum() - (1 - weights[truth])
    mean_then = mean + (others_move[:, None] * shift + own_then - prototypes[truth]) / labels
    texts = left_out - _coverage(has) * mean_then

    # A prototype j of another label is now prototypes[j] + slack[j] * shift; minus the new mean, it is moved[j].
    slack = 1 - weights
    dots = texts @ prototypes.T + slack * _rowwise(texts, shift)[:, None] - _rowwise(texts, mean_then)[:, None]
    lengths = (
        (prototypes**2).sum(axis=1)
        + slack**2 * _rowwise(shift, shift)[:, None]
        + _rowwise(mean_then, mean_then)[:, None]
        + 2 * slack * (shift @ prototypes.T)
        - 2 * (mean_then @ prototypes.T)
        - 2 * slack * _rowwise(shift, mean_then)[:, None]
    )
    own = own_then - mean_then
    dots[rows, truth], lengths[rows, truth] = _rowwise(texts, own), _rowwise(own, own)
    lengths = np.sqrt(np.maximum(lengths, 0.0))
    projections: NDArray[np.float64] = np.where(lengths > _EPSILON, dots / np.maximum(lengths, _EPSILON), 0.0)
    return projections


def _coverage(has: NDArray[np.bool_]) -> float:
    """How far texts are centred on the labels' examples: those of few labels say little about texts on the whole."""
    return float(has.mean() ** 2)


def _rowwise(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    products: NDArray[np.float64] = np.einsum("ij,ij->i", a, b)
    return products


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows at length 1; what is no longer than rounding becomes zero."""
    lengths = np.linalg.norm(rows, axis=-1, keepdims=True)
    return np.where(lengths > _EPSILON, rows / np.maximum(lengths, _EPSILON), 0.0)


def _softmax(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    powers = np.exp(rows - rows.max(axis=1, keepdims=True))
    normalised: NDArray[np.float64] = powers / powers.sum(axis=1, keepdims=True)
    return normalised
