"""What the default of the diversity knob stands for in a catalogue: a tenth more variety, for as little as it takes.

How much relevance a place can give up differs: where the first ten candidates are nearly as good as the next forty
variety is free, where the first three have everything it is not. So pairs of a weight and a number of kept places are
tried on lists for the cases that a training learns from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ranking_service.diversity.knob import HOUSE_KNOB, Knob, diverse_order
from ranking_service.query import DEFAULT_DIVERSITY, DiversityMethod
from ranking_service.selectors.slate import Slate
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.in_process import RecordedService
from zhiyin_offline.evaluation.metrics.accuracy import accuracy
from zhiyin_offline.evaluation.metrics.variety import category_diversity, category_matrix, vector_diversity
from zhiyin_offline.evaluation.protocols import Case

_K = 10
_WEIGHTS = (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
_KEPT = (3, 5, 7)
# Of both kinds of variety, against relevance alone.
_MORE = 1.1
# Without a pair that reaches it: the most variety that costs no more than this share of NDCG.
_LOSS = 0.005
_MAX_CASES = 1_000
_FEW = 100

Lists = NDArray[np.int32]


@dataclass(frozen=True)
class KnobChoice:
    """What came out.

    Attributes:
        knob: What to serve with.
        evidence: NDCG@10 and both intra-list diversities by relevance alone and at the knob, for people.
    """

    knob: Knob
    evidence: dict[str, dict[str, float]]


def choose_knob(
    service: RecordedService,
    dataset: Dataset,
    rows: NDArray[np.float32],
    cases: Sequence[Case],
    say: Callable[[str], None] = lambda _: None,
) -> KnobChoice:
    """Tries every pair on an even draw of the cases.

    Args:
        service: With the bundle that is to serve. Its scores must not have been fitted closely to these cases.
        dataset: Whose items they are.
        rows: Vectors of all items as the semantic space compares them, shape (items, d).
        cases: By rising time.
        say: Told what is going on.
    """
    if len(cases) < _FEW:
        return KnobChoice(HOUSE_KNOB, {})
    say("diversity")
    chosen = [cases[int(i)] for i in np.linspace(0, len(cases) - 1, min(len(cases), _MAX_CASES)).round()]
    knobs = [Knob(weight, kept) for kept in _KEPT for weight in _WEIGHTS]
    numbers = dataset.item_numbers

    def orders(slate: Slate) -> Lists:
        """The first places by relevance alone, then by each knob. Shape (1 + knobs, k)."""
        items, scores, vectors = slate.items, slate.scores.total[: slate.main], slate.likeness()
        out = np.full((1 + len(knobs), _K), -1, np.int32)
        for row, knob in enumerate([None, *knobs]):
            diversity = 0.0 if knob is None else DEFAULT_DIVERSITY
            order = diverse_order(scores, vectors, diversity, DiversityMethod.MSD, knob or HOUSE_KNOB)
            places = [numbers[items[place].id] for place in islice(order, _K)]
            out[row, : len(places)] = places
        return out

    lists = np.stack(service.slates(chosen, orders))
    targets = np.array([case.target for case in chosen], np.int32)
    categories = category_matrix([list(item.categories) for item in dataset.items])
    ndcg = [float(accuracy(lists[:, row], targets, (_K,))[f"ndcg@{_K}"].mean()) for row in range(1 + len(knobs))]
    vector = [_mean(vector_diversity(lists[:, row], rows)) for row in range(1 + len(knobs))]
    category = [_mean(category_diversity(lists[:, row], categories)) for row in range(1 + len(knobs))]
    best = _best(np.array(ndcg), np.array(vector), np.array(category))

    def figures(row: int) -> dict[str, float]:
        return {
            f"ndcg@{_K}": round(ndcg[row], 5),
            f"diversity@{_K}": round(vector[row], 4),
            f"category_diversity@{_K}": round(category[row], 4),
        }

    knob = knobs[best - 1] if best else Knob(min(_WEIGHTS), max(_KEPT))
    evidence = {"relevance alone": figures(0)}
    if best:
        evidence[f"weight {knob.weight:g}, {knob.kept} kept"] = figures(best)
    return KnobChoice(knob, evidence)


def _best(ndcg: NDArray[np.float64], vector: NDArray[np.float64], category: NDArray[np.float64]) -> int:
    """Row of the pair to take: the most relevant that is varied enough; else the most varied that costs nothing."""
    # Only what can become a tenth more varied: not categories where there are none or all are alike, not vectors of
    # bare titles, which are as far apart as can be from the start.
    kinds = [kind for kind in (vector, category) if 0 < kind[0] <= 1 / _MORE] or [np.maximum(vector, 1e-9)]
    gain = np.min([kind / kind[0] for kind in kinds], axis=0)
    enough = np.flatnonzero(gain >= _MORE)
    cheap = np.flatnonzero(ndcg >= (1 - _LOSS) * ndcg[0])
    if len(enough):
        return int(enough[np.lexsort((-gain[enough], -ndcg[enough]))[0]])
    return int(cheap[np.argmax(gain[cheap])])


def _mean(values: NDArray[np.float64]) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
