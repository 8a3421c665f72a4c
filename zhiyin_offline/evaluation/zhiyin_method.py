"""Zhiyin as one of the methods of an evaluation: trained on what the split allows, then asked through its pipeline."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from itertools import groupby
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranking_service.bundles.loading import serving_bundle
from ranking_service.bundles.serving_bundle import ServingBundle
from ranking_service.candidate import SourceKind
from ranking_service.query import DEFAULT_DIVERSITY
from ranking_service.scorers.learned import LearnedScorer
from ranking_service.selectors.slate import Slate
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.in_process import RecordedService
from zhiyin_offline.evaluation.memory_catalog import MemoryCatalog
from zhiyin_offline.evaluation.methods import Lists
from zhiyin_offline.evaluation.other_orders import Order, own_order
from zhiyin_offline.evaluation.protocols import Case, Split
from zhiyin_offline.training.asked_service import serving_spaces
from zhiyin_offline.training.calibration_step import judge_later
from zhiyin_offline.training.train import Trained, restricted, train
from zhiyin_offline.training.training_settings import NothingToLearn, Protocol, TrainingSettings


class ZhiyinMethod:
    """The services' own lists.

    Args:
        vectors: Raw vector of each item, shape (items, d).
        fingerprint: Of their space.
        seed: Of the training.
        trained: False: as it serves before any training.
        diversity: As in a request.
        max_cases: Cases that the training learns from.
        only: Lists by this source alone, all sources' candidates considered and without diversity; None: as served.
        trainings: Bundles by seed, for methods that differ in their lists only and run on one split.
    """

    def __init__(
        self,
        vectors: NDArray[np.float32],
        fingerprint: str,
        seed: int = 0,
        *,
        trained: bool = True,
        diversity: float = DEFAULT_DIVERSITY,
        max_cases: int = TrainingSettings.max_cases,
        only: SourceKind | None = None,
        trainings: dict[int, Trained | None] | None = None,
    ) -> None:
        self._vectors, self._fingerprint, self._seed = vectors, fingerprint, seed
        self._trains, self._max_cases, self._only = trained, max_cases, only
        self._diversity = diversity if only is None else 0.0
        self._trainings = {} if trainings is None else trainings
        self.bundle: Trained | None = None

    @property
    def name(self) -> str:
        """`zhiyin`; variants say what they leave out."""
        if self._only is not None:
            return f"zhiyin-only-{self._only.name.lower()}"
        parts = ["zhiyin", *([] if self._trains else ["untrained"])]
        return " ".join([*parts, *([] if self._diversity == DEFAULT_DIVERSITY else [f"diversity {self._diversity:g}"])])

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Trains a bundle on `split.training`, then folds all of it into the statistics, as a service would have."""
        self._dataset, self._split = dataset, split
        self._serving = self._learned(restricted(dataset, split.training), split) if self._trains else None
        self._service = self._after_training()
        if self._only is not None:
            self._service.bundle = replace(self._service.bundle, scorer=LearnedScorer({self._only: 1.0}, None, 0))
        self._passed = int(split.training[-1]) + 1 if len(split.training) else 0

    def rank(self, cases: Sequence[Case], k: int) -> Lists:
        """Lists in the order of the cases, which rises in time; streaming, what passed before each is folded in."""
        return self.rank_by(cases, k, (own_order,))[0]

    def rank_by(self, cases: Sequence[Case], k: int, orders: Sequence[Order]) -> list[Lists]:
        """The lists of each order, from one pass over the cases."""
        if not self._split.streaming:
            return list(self._lists(cases, k, orders))
        out = []
        for now, together in groupby(cases, key=lambda case: case.now):
            end = int(np.searchsorted(self._dataset.events.time, now, side="left"))
            if end > self._passed:
                self._service.statistics.fold(np.arange(self._passed, end))
                self._passed = end
            out.append(self._lists(list(together), k, orders))
        return list(np.concatenate(out, axis=1) if out else np.empty((len(orders), 0, k), np.int32))

    def chances(self) -> dict[str, Any]:
        """See `TellsChances`."""
        if self.bundle is None or self._only is not None:
            return {}
        told = self.bundle.manifest.evidence["chances"]
        found = {"in_training": told} if "calibration_error" in told else {}
        split, events = self._split, self._dataset.events
        count = len(split.training)
        # Whatever else is held out than what came later, the record no longer says what became of all impressions.
        if self.bundle.manifest.calibration and split.name.startswith("time-split") and split.training[-1] + 1 == count:
            cut = float(events.time[count])
            later = judge_later(self._after_training(), self._dataset, cut, told["rate"], self._seed)
            found |= {"later": later} if later else {}
        return found

    def _after_training(self) -> RecordedService:
        sequence = None if self.bundle is None else self.bundle.sequence
        spaces = serving_spaces(self._vectors, self._fingerprint, sequence)
        service = RecordedService(self._dataset, MemoryCatalog(self._dataset.items, spaces), bundle=self._serving)
        service.statistics.fold(self._split.training)
        return service

    def _lists(self, cases: Sequence[Case], k: int, orders: Sequence[Order]) -> Lists:
        """Shape (orders, cases, k)."""
        of_slates = [partial(_rows, order, self._dataset) for order in orders]
        return self._service.ranked(cases, k, of_slates, self._diversity, self._split.include_history)

    def _learned(self, record: Dataset, split: Split) -> ServingBundle | None:
        protocol: Protocol = "time-split" if split.name.startswith("time-split") else "leave-one-out"
        settings = TrainingSettings(protocol=protocol, max_cases=self._max_cases, seed=self._seed)
        if self._seed not in self._trainings:
            try:
                trained = train(record, self._vectors, self._fingerprint, "default", settings)
            except NothingToLearn:
                trained = None
            self._trainings[self._seed] = trained
        self.bundle = self._trainings[self._seed]
        return None if self.bundle is None else serving_bundle(self.bundle.manifest, self.bundle.files)


def _rows(order: Order, dataset: Dataset, slate: Slate) -> Iterator[int]:
    return order(slate, dataset)
