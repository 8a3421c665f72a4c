"""A recorded catalogue and its events, as columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ranking_service.users.event import EventContext, LogEntry
from ranking_service.users.event_types import RULES, Repeat
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1.ranking_service_pb2 import EVENT_TYPE_IMPRESSION, User
from zhiyin_offline.rows.row_errors import BadRow, ImportFailed
from zhiyin_offline.rows.row_messages import M, event_message, item_message, message_of, user_message
from zhiyin_offline.rows.row_source import RowSource, SourceRow

Numbers = NDArray[np.int32]
Times = NDArray[np.float64]
NO_CONTEXT = EventContext()
_SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet", ".csv")


@dataclass(frozen=True)
class Events:
    """Events by rising time; those of the same time in the order of the file. One row an event, all columns length n.

    Attributes:
        user: User number.
        item: Item number; -1 for an event without an item, or on one that the catalogue does not hold.
        event_type: The zhiyin.ranking.v1.EventType number.
        value: NaN where there is none.
        time: Unix seconds.
        strength: Signed, after the event-type table.
        shown: Item number that an IMPRESSION showed; -1 for every other event, and for an item that the catalogue does
            not hold. A column of its own, so that nothing takes what was only shown for what somebody acted on. Item n
            is -2 - n where the record does not say what became of it (`impressions.known_outcomes`).
        context: Place of the event's circumstances among `contexts`, -1 for none; empty where no event has any.
        contexts: Different circumstances, without their times.
    """

    user: Numbers
    item: Numbers
    event_type: NDArray[np.int16]
    value: NDArray[np.float64]
    time: Times
    strength: NDArray[np.float32]
    shown: Numbers
    context: Numbers = field(default_factory=lambda: np.empty(0, np.int32))
    contexts: tuple[EventContext, ...] = ()

    def __len__(self) -> int:
        return len(self.user)

    def take(self, rows: NDArray[np.int64] | NDArray[np.bool_]) -> Events:
        """Some of the events, in their order when `rows` rises."""
        return Events(
            self.user[rows],
            self.item[rows],
            self.event_type[rows],
            self.value[rows],
            self.time[rows],
            self.strength[rows],
            self.shown[rows],
            self.context[rows] if len(self.context) else self.context,
            self.contexts,
        )

    def context_of(self, row: int) -> EventContext:
        """In what circumstances an event took place, as far as anybody told."""
        place = int(self.context[row]) if len(self.context) else -1
        return self.contexts[place] if place >= 0 else NO_CONTEXT


@dataclass(frozen=True)
class Dataset:
    """What an evaluation or a training reads.

    Attributes:
        items: The catalogue; an item's number is its place here.
        user_ids: A user's number is its place here: everybody with an event.
        users: Stored profiles by user id, of those who have one.
        events: All events.
    """

    items: tuple[Item, ...]
    user_ids: tuple[str, ...]
    users: dict[str, User]
    events: Events

    @cached_property
    def item_ids(self) -> tuple[str, ...]:
        """Id by item number."""
        return tuple(item.id for item in self.items)

    @cached_property
    def item_numbers(self) -> dict[str, int]:
        """Item number by id."""
        return {item.id: number for number, item in enumerate(self.items)}

    def log(self, rows: NDArray[np.int64]) -> Iterator[LogEntry]:
        """These events as the statistics fold them: sequence is the row + 1, the user's key the number + 1."""
        events = self.events
        for row in rows.tolist():
            item, value = int(events.item[row]), float(events.value[row])
            yield LogEntry(
                row + 1,
                int(events.user[row]) + 1,
                self.item_ids[item] if item >= 0 else "",
                int(events.event_type[row]),
                None if np.isnan(value) else value,
                float(events.time[row]),
            )

    @cached_property
    def positive(self) -> NDArray[np.bool_]:
        """Events that say something for an item of the catalogue, shape (events,): what targets are chosen from."""
        return (self.events.item >= 0) & (self.events.strength > 0)


def read_dataset(folder: Path, known: Sequence[Item] = ()) -> Dataset:
    """Reads `items` and `events`, and `users` where there is one, as JSON Lines, CSV or Parquet.

    Args:
        folder: Of the files.
        known: A catalogue to put the events into: its items come first and are taken as they are; `items` then adds
            those that it does not hold, and need not be there.

    Raises:
        ImportFailed: A file is missing or a row cannot be read.
    """
    items = (*known, *_items(folder, {item.id for item in known}))
    numbers = {item.id: number for number, item in enumerate(items)}
    user_numbers: dict[str, int] = {}
    rows = EventRows(numbers)
    for row in _rows(folder, "events"):
        event = _message(row, event_message)
        rows.add(
            user_numbers.setdefault(event.user_id, len(user_numbers)),
            event.item_id,
            event.type,
            event.value if event.HasField("value") else None,
            event.time.seconds + event.time.nanos / 1e9,
            EventContext(event.context.locale, None, event.context.device, event.context.place),
        )
    users = {}
    if _find(folder, "users") is not None:
        users = {user.id: user for user in (_message(row, user_message) for row in _rows(folder, "users"))}
    return Dataset(items, tuple(user_numbers), users, rows.events())


class EventRows:
    """Collects events in any order.

    Args:
        item_numbers: Item number by id.
    """

    def __init__(self, item_numbers: Mapping[str, int]) -> None:
        self._item_numbers = item_numbers
        self._rows: list[tuple[int, int, int, float, float, float, int, int]] = []
        self._contexts: dict[EventContext, int] = {}

    def add(
        self,
        user: int,
        item_id: str,
        event_type: int,
        value: float | None,
        time: float,
        context: EventContext = NO_CONTEXT,
    ) -> None:
        """One event; see `Events` for the columns."""
        rule = RULES[event_type]
        number = self._item_numbers.get(item_id, -1)
        item = number if rule.repeat is not Repeat.IGNORED else -1
        shown = number if event_type == EVENT_TYPE_IMPRESSION else -1
        value_or_nan = np.nan if value is None else value
        self._rows.append(
            (user, item, event_type, value_or_nan, time, rule.strength(value), shown, self._place(context))
        )

    def events(self) -> Events:
        """All of them, by time."""
        table = np.array(self._rows, dtype=np.float64).reshape(-1, 8)
        table = table[np.argsort(table[:, 4], kind="stable")]
        return Events(
            table[:, 0].astype(np.int32),
            table[:, 1].astype(np.int32),
            table[:, 2].astype(np.int16),
            table[:, 3],
            table[:, 4],
            table[:, 5].astype(np.float32),
            table[:, 6].astype(np.int32),
            table[:, 7].astype(np.int32) if self._contexts else np.empty(0, np.int32),
            tuple(self._contexts),
        )

    def _place(self, context: EventContext) -> int:
        if context is NO_CONTEXT:
            return -1
        told = replace(context, time_us=None)
        return -1 if told == NO_CONTEXT else self._contexts.setdefault(told, len(self._contexts))


def _message(row: SourceRow, build: Callable[[SourceRow], M]) -> M:
    try:
        return message_of(row, build)
    except BadRow as fault:
        raise ImportFailed(f"{row.file}, row {row.line}: {fault}") from None


def _items(folder: Path, known: Set[str]) -> Iterator[Item]:
    if known and _find(folder, "items") is None:
        return
    for row in _rows(folder, "items"):
        # Ids alone are enough to learn from: who chose what needs no words.
        item = _message(row, partial(item_message, wordless=True))
        if item.id not in known:
            yield item


def _find(folder: Path, name: str) -> Path | None:
    return next((path for suffix in _SUFFIXES if (path := folder / f"{name}{suffix}").exists()), None)


def _rows(folder: Path, name: str) -> RowSource:
    path = _find(folder, name)
    if path is None:
        raise ImportFailed(f"{folder} holds no {name}.jsonl (or .csv, .parquet)")
    return RowSource(str(path))
