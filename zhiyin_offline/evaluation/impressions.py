"""What was shown to whom, what became of it, and the moments at which it was shown: what chances are fitted to."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from zhiyin.ranking.v1.ranking_service_pb2 import EVENT_TYPE_IMPRESSION
from zhiyin_offline.evaluation.dataset import Dataset, Events
from zhiyin_offline.evaluation.protocols import Case, user_rows

WINDOW_S = 86_400.0
"""So long after an impression what the user does with the item counts as its outcome."""

# From this downwards `Events.shown` counts items whose impressions have an outcome that is held back.
_HELD_BACK = -2
# Impressions of one user within this time, with nothing else in between, are of one list.
_SAME_LIST_S = 600.0


@dataclass(frozen=True)
class Impressions:
    """Impressions whose outcome is known, by rising time. All columns of length n.

    Attributes:
        row: Of the event.
        user, item: Numbers.
        time: Unix seconds.
        acted: Whether the user acted positively on the item within 24 hours, or before the same item was shown to them
            again, whichever came first.
    """

    row: NDArray[np.int64]
    user: NDArray[np.int32]
    item: NDArray[np.int32]
    time: NDArray[np.float64]
    acted: NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.row)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Impressions:
        """Some of them, in their order when `rows` rises."""
        return Impressions(self.row[rows], self.user[rows], self.item[rows], self.time[rows], self.acted[rows])


@dataclass(frozen=True, slots=True)
class Moment:
    """Impressions of one list.

    Attributes:
        case: The user as they were: everything they had done before, strictly in time. Its target says nothing.
        items: Item numbers that were shown.
        acted: Of each, whether the user acted on it, shape (items,).
    """

    case: Case
    items: NDArray[np.int32]
    acted: NDArray[np.bool_]


def impressions(dataset: Dataset) -> Impressions:
    """All impressions but those whose window the record ends in: of these nobody knows what became of them.

    An impression that is recorded again at the same time is one impression.
    """
    events = dataset.events
    shown, liked = np.flatnonzero(events.shown != -1), np.flatnonzero(dataset.positive)
    rows = np.concatenate([shown, liked])
    of_shown = events.shown[shown]
    item = np.concatenate([np.where(of_shown < 0, _HELD_BACK - of_shown, of_shown), events.item[liked]]).astype(
        np.int64
    )
    pair = events.user[rows].astype(np.int64) * max(len(dataset.items), 1) + item
    is_liked = np.arange(len(rows)) >= len(shown)
    # A pair's events by time; what somebody did at the very time of an impression came of it.
    order = np.lexsort((is_liked, events.time[rows], pair))
    rows, pair, is_liked, time = rows[order], pair[order], is_liked[order], events.time[rows[order]]
    next_shown, next_liked = _next(~is_liked, pair, time), _next(is_liked, pair, time)
    end = float(events.time[-1]) if len(events) else 0.0
    known = (events.shown[rows] >= 0) & ~is_liked & (next_shown > time) & (time + WINDOW_S <= end)
    acted = next_liked < np.minimum(time + WINDOW_S, next_shown)
    found = np.flatnonzero(known)
    found = found[np.argsort(rows[found], kind="stable")]
    row = rows[found]
    return Impressions(row, events.user[row], events.shown[row], time[found], acted[found])


def known_outcomes(dataset: Dataset, rows: NDArray[np.int64]) -> Events:
    """Some events of a record, its impressions marked whose outcome is perhaps among the others.

    What is held out for an evaluation would else turn what was acted on into what was passed over. All impressions are
    marked that are followed within 24 hours by a positive event, on whatever item, that is held out: which of them are
    does not depend on their own outcome. They still end the windows of earlier ones.
    """
    events = dataset.events
    if not np.any(events.shown >= 0):
        return events.take(rows)
    gone = dataset.positive.copy()
    gone[rows] = False
    order = np.lexsort((gone, events.time, events.user))
    cut = np.full(len(events), np.inf)
    cut[order] = _next(gone[order], events.user[order], events.time[order])
    held_back = (events.shown >= 0) & (cut < events.time + WINDOW_S)
    shown = np.where(held_back, _HELD_BACK - events.shown, events.shown).astype(np.int32)
    return replace(events, shown=shown).take(rows)


def moments(dataset: Dataset, shown: Impressions, users: Collection[int]) -> list[Moment]:
    """The lists that some users were shown, by rising time: impressions of ten minutes with nothing done in between."""
    rows_of, events = user_rows(dataset), dataset.events
    order = np.argsort(shown.user, kind="stable")
    starts = np.searchsorted(shown.user[order], np.arange(len(rows_of) + 1))
    found = []
    for user in users:
        of_user = shown.take(order[starts[user] : starts[user + 1]])
        rows = rows_of[user]
        done = rows[events.event_type[rows] != EVENT_TYPE_IMPRESSION]
        before = np.searchsorted(events.time[done], of_user.time, side="left")
        start = 0
        for place in range(1, len(of_user) + 1):
            ends = place == len(of_user) or before[place] != before[start]
            if ends or of_user.time[place] - of_user.time[start] > _SAME_LIST_S:
                first, row = float(of_user.time[start]), int(of_user.row[start])
                case = Case(user, int(of_user.item[start]), row, first, done[: before[start]])
                found.append(Moment(case, of_user.item[start:place], of_user.acted[start:place]))
                start = place
    return sorted(found, key=lambda moment: (moment.case.now, moment.case.target_row))


def _next(wanted: NDArray[np.bool_], pair: NDArray[np.integer[Any]], time: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of each event the time of the next wanted one of its pair, infinite where there is none."""
    count = len(wanted)
    places = np.where(wanted, np.arange(count), count)
    after = np.append(np.minimum.accumulate(places[::-1])[::-1], count)[1:]
    padded_time, padded_pair = np.append(time, np.inf), np.append(pair, -1)
    return np.where(padded_pair[after] == pair, padded_time[after], np.inf)
