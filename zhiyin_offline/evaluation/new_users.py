"""Users as if they were new: for the curve over how little is known of somebody."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.protocols import Split


def as_new_users(dataset: Dataset, split: Split, known_events: int, share: float = 0.2, seed: int = 0) -> Split:
    """Some users with only their latest events before the target known, and none of their events learned from. Frozen.

    The same users are drawn whatever is known of them, so that the points of a curve are about the same people.

    Args:
        dataset: What happened.
        split: What to learn from and to predict.
        known_events: Events left of each history; 0: none.
        share: Of the users with cases; the others are learned from and give no case.
        seed: Of who is drawn.
    """
    users = np.unique([case.user for case in split.cases])
    drawn = np.random.default_rng(seed).permutation(users)[: max(1, round(share * len(users)))]
    chosen = set(drawn.tolist())
    cases = tuple(
        replace(case, history=case.history[max(len(case.history) - known_events, 0) :])
        for case in split.cases
        if case.user in chosen
    )
    training = split.training[~np.isin(dataset.events.user[split.training], drawn)]
    name = f"{split.name}/new users, {known_events} events"
    return replace(split, name=name, cases=cases, training=training, streaming=False)
