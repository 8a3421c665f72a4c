"""Which events are predicted, and what may be known when each of them is: leave-one-out and a global time split.

Both make a `Split`: cases to predict, and the rows that any statistic or model may learn from. What a case may read of
its own user stands in `Case.history`; nothing else of the data set is known at that moment.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from ranking_service.users.event_types import RULES
from zhiyin_offline.evaluation.dataset import Dataset

Part = Literal["validation", "test"]
Rows = NDArray[np.int64]
_MIN_POSITIVES = 3
_CUTS = (0.8, 0.9)


@dataclass(frozen=True, slots=True)
class Case:
    """One prediction.

    Attributes:
        user: User number.
        target: Item number that the user really acted on.
        target_row: Row of that event.
        now: The moment of the prediction, Unix seconds: that of the target.
        history: Rows of this user's events before the target, rising. Those of the target's own time are among them
            only under a protocol in which rows are ordered (leave-one-out).
    """

    user: int
    target: int
    target_row: int
    now: float
    history: Rows


@dataclass(frozen=True)
class Split:
    """Cases, and what may be learned before them.

    Attributes:
        name: Of the protocol and its part, such as `leave-one-out/test`.
        cases: By rising time.
        training: Event rows that statistics and models may learn from, rising.
        streaming: Whether a method may fold in every row of a time strictly before a case's `now`, besides training.
        include_history: Whether items that the user is done with may be recommended again.
        dropped: Cases left out because their target could not have been recommended: the user was done with it.
    """

    name: str
    cases: tuple[Case, ...]
    training: Rows
    streaming: bool = False
    include_history: bool = False
    dropped: int = 0


def leave_one_out(dataset: Dataset, part: Part = "test", *, include_history: bool = False) -> Split:
    """The last positive event of every user is the test target, the second last the validation target.

    Users with fewer than three positive events give no case, and all their events are learned from. Of the others
    everything before the target is learned from and nothing from it on. Rows are ordered, also at equal times.
    """
    users, positive = dataset.events.user, dataset.positive
    back = 1 if part == "test" else 2
    learned = np.ones(len(users), dtype=np.bool_)
    cases = []
    for user, rows in enumerate(user_rows(dataset)):
        liked = rows[positive[rows]]
        if len(liked) < _MIN_POSITIVES:
            continue
        target_row = int(liked[-back])
        learned[rows[rows >= target_row]] = False
        cases.append(_case(dataset, user, target_row, rows[rows < target_row]))
    return _split(dataset, f"leave-one-out/{part}", cases, np.flatnonzero(learned), include_history=include_history)


def time_split(
    dataset: Dataset, part: Part = "test", *, streaming: bool = False, include_history: bool = False
) -> Split:
    """Cuts at 80 % and 90 % of the events: validation targets between the cuts, test targets after the second.

    Every positive event there is a case at its own time, of new users too. Equal times carry no order: events of one
    time are all on the same side of a cut, and none is the history of another.

    Args:
        dataset: What happened.
        part: Which targets.
        streaming: Whether methods may go on learning from what passes before each case.
        include_history: Keep cases whose target the user was done with.
    """
    times = dataset.events.time
    cuts = [times[int(share * len(times))] for share in _CUTS] if len(times) else [0.0, 0.0]
    first, end = (cuts[0], cuts[1]) if part == "validation" else (cuts[1], np.inf)
    chosen = dataset.positive & (times >= first) & (times < end)
    cases = []
    for user, rows in enumerate(user_rows(dataset)):
        seen: set[tuple[int, float]] = set()
        for target_row in rows[chosen[rows]].tolist():
            key = (int(dataset.events.item[target_row]), float(times[target_row]))
            if key not in seen:  # two positive events on one item at one time are one thing to predict
                seen.add(key)
                before = int(np.searchsorted(times[rows], times[target_row], side="left"))
                cases.append(_case(dataset, user, target_row, rows[:before]))
    form = "streaming" if streaming else "frozen"
    training = np.flatnonzero(times < first)
    split = _split(dataset, f"time-split/{part}/{form}", cases, training, include_history=include_history)
    return replace(split, streaming=streaming)


def sample_users(split: Split, max_users: int, seed: int = 0) -> Split:
    """The cases of so many users, drawn evenly; what is learned from stays."""
    users = np.unique([case.user for case in split.cases])
    if len(users) <= max_users:
        return split
    kept = set(np.random.default_rng(seed).choice(users, max_users, replace=False).tolist())
    return replace(split, cases=tuple(case for case in split.cases if case.user in kept))


def user_rows(dataset: Dataset) -> list[Rows]:
    """Event rows by user number, rising."""
    users = dataset.events.user
    order = np.argsort(users, kind="stable")
    bounds = np.searchsorted(users[order], np.arange(len(dataset.user_ids) + 1))
    return [order[start:end] for start, end in pairwise(bounds)]


def done_with(dataset: Dataset) -> NDArray[np.bool_]:
    """Events after which their item is not recommended to their user again, shape (events,), history excluded.

    Positive ones, and those after which the services take an item for seen or hidden.
    """
    events = dataset.events
    out = dataset.positive.copy()
    for event_type in np.unique(events.event_type).tolist():
        rule, rows = RULES[event_type], events.event_type == event_type
        if rule.seen or rule.hides:
            out |= rows & (events.item >= 0)
        elif rule.seen_from_value is not None:
            out |= rows & (events.item >= 0) & (events.value >= rule.seen_from_value)
    return out


def _case(dataset: Dataset, user: int, target_row: int, history: Rows) -> Case:
    events = dataset.events
    return Case(user, int(events.item[target_row]), target_row, float(events.time[target_row]), history)


def _split(dataset: Dataset, name: str, cases: list[Case], training: Rows, *, include_history: bool) -> Split:
    done = done_with(dataset)
    cases.sort(key=lambda case: case.target_row)
    possible = [
        c for c in cases if include_history or not np.any(dataset.events.item[c.history[done[c.history]]] == c.target)
    ]
    return Split(name, tuple(possible), training, include_history=include_history, dropped=len(cases) - len(possible))
