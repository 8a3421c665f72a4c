"""Whether reading attributes and circumstances lets a learned ranker find more, and what of them is read then.

They cost every request a look at the attributes of all candidates. So they are read where a ranker that reads them is
better, on cases that it has not learned from, than one that does not.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ranking_service.attribute_features.attribute_features import AttributeFeatures
from ranking_service.attribute_features.feature_spec import FeatureSpec
from ranking_service.scorers.features import NAMES
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.protocols import Rows
from zhiyin_offline.training.attributes.learn_spec import learn_spec
from zhiyin_offline.training.choice import judge_learned_ranker
from zhiyin_offline.training.differences import exceeds
from zhiyin_offline.training.draws import drawn
from zhiyin_offline.training.examples import Example

# Cases looked at: each of both rankers is trained five times.
_MOST_CASES = 3_000
# They are read when they add this share of what there is and this many standard errors of the difference, as sources
# are asked.
_WORTH, _ERRORS = 0.005, 0.5
# Says nothing that the hour does not say; lifts know it by itself.
_OF_NO_USE = ("context.daypart",)


@dataclass(frozen=True)
class AttributesChoice:
    """What came out.

    Attributes:
        features: What to read; None: nothing.
        examples: All of them, with its columns behind those that every ranker reads.
        evidence: For people.
    """

    features: AttributeFeatures | None
    examples: list[Example]
    evidence: Mapping[str, object]

    @property
    def names(self) -> tuple[str, ...]:
        """Of these columns."""
        return () if self.features is None else self.features.spec.names


def choose_attributes(
    dataset: Dataset, learned_from: Rows, examples: Sequence[Example], seed: int, threads: int
) -> AttributesChoice:
    """Learns what could be read, drops what says the same of everything, and compares.

    Args:
        dataset: The record.
        learned_from: Rows of events from before the cases.
        examples: Without columns of attributes.
        seed: Of the folds.
        threads: Of the ranker.
    """
    spec = learn_spec(dataset, learned_from)
    few = drawn(examples, _MOST_CASES, seed)
    spec = spec.keeping(_varying(with_attributes(few, AttributeFeatures(spec), dataset), spec))
    if not spec.names or not few:
        return AttributesChoice(None, list(examples), {})
    features = AttributeFeatures(spec)
    reading = with_attributes(few, features, dataset)
    without, ndcg = (judge_learned_ranker(each, seed, threads) for each in (few, reading))
    evidence = {
        "columns": list(spec.names),
        "ndcg@10": {"without": round(float(without.mean()), 5), "with": round(float(ndcg.mean()), 5)},
    }
    if not exceeds(ndcg - without, _ERRORS, _WORTH * float(without.mean())):
        return AttributesChoice(None, list(examples), evidence)
    return AttributesChoice(features, with_attributes(examples, features, dataset), evidence)


def with_attributes(examples: Sequence[Example], features: AttributeFeatures, dataset: Dataset) -> list[Example]:
    """The examples with the columns of a spec behind those that every ranker reads, instead of others of this kind."""
    numbers, rows = dataset.item_numbers, {}
    for number in sorted({number for example in examples for number in example.items.tolist()}):
        rows[number] = features.items.row(dataset.items[number])
    out = []
    for example in without_attributes(examples):
        liked = {i: features.items.row(dataset.items[numbers[i]]) for i, _ in example.asker.liked if i in numbers}
        columns = features.of(example.asker, liked, [rows[number] for number in example.items.tolist()])
        out.append(replace(example, columns=np.hstack([example.columns, columns.astype(np.float16)])))
    return out


def without_attributes(examples: Sequence[Example]) -> list[Example]:
    """The examples with the columns that every ranker reads."""
    return [replace(example, columns=example.columns[:, : len(NAMES)]) for example in examples]


def _varying(examples: Sequence[Example], spec: FeatureSpec) -> Collection[str]:
    """Columns that tell at least two candidates, or two cases, apart."""
    lowest = np.full(len(spec.names), np.inf)
    highest = -lowest
    for example in examples:
        if len(example.items):
            told = example.columns[:, len(NAMES) :].astype(np.float64)
            lowest = np.fmin(lowest, np.fmin.reduce(told, axis=0))
            highest = np.fmax(highest, np.fmax.reduce(told, axis=0))
    return [name for name, vary in zip(spec.names, highest > lowest, strict=True) if vary and name not in _OF_NO_USE]
