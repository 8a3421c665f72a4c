"""Items as if they were new: what anybody did with them is taken out of all that is learned from or asked with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.protocols import Split


def draw_hidden(dataset: Dataset, share: float, seed: int = 0) -> NDArray[np.int32]:
    """Item numbers, so large a share of the catalogue, rising."""
    count = round(share * len(dataset.items))
    drawn = np.random.default_rng(seed).choice(len(dataset.items), count, replace=False)
    return np.sort(drawn).astype(np.int32)


def hide(dataset: Dataset, split: Split, hidden: NDArray[np.int32]) -> Split:
    """The split with every event on a hidden item taken out of training and of histories; targets stay. Always frozen.

    Args:
        dataset: What happened.
        split: What to learn from and to predict.
        hidden: Item numbers.
    """
    shown = ~np.isin(dataset.events.item, hidden)
    cases = tuple(replace(case, history=case.history[shown[case.history]]) for case in split.cases)
    training = split.training[shown[split.training]]
    return replace(split, name=f"{split.name}/hidden items", cases=cases, training=training, streaming=False)
