"""Events in the store: recording them inside the writer's transaction, and reading the log back."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update

from ranking_service.users.event import Erasure, Event, EventContext, LogEntry
from ranking_service.users.event_types import RULES
from ranking_service.users.store.schema import catalogs, erasures, events, users
from ranking_service.users.user import Change, UserChange
from ranking_service.users.user_state import Interaction
from service_runtime.errors import AlreadyExists
from zhiyin.ranking.v1 import ranking_service_pb2 as pb

_IDS_PER_QUERY = 500
_ENTRIES_PER_PAGE = 5_000

LogPage = tuple[list[LogEntry | Erasure], int]


def record_events(connection: Connection, catalog: str, catalog_key: int, batch: Sequence[Event]) -> Change:
    """Records the events of a request that the store does not know yet.

    Raises:
        AlreadyExists: An event id is known, in the store or earlier in the batch, with other content.
    """
    before = lock_sequence(connection, catalog_key)
    fresh = _not_yet_recorded(connection, catalog_key, batch)
    duplicates = len(batch) - len(fresh)
    if not fresh:
        return Change(catalog, before, before, duplicates=duplicates)
    after = take_sequence(connection, catalog_key, len(fresh))
    known = _count_events_of_users(connection, catalog_key, fresh, after)
    rows, entries = [], []
    by_user: dict[str, list[tuple[int, Event]]] = defaultdict(list)
    for sequence, event in enumerate(fresh, start=after - len(fresh) + 1):
        user_key = known[event.user_id][0]
        rows.append(_row(catalog_key, sequence, user_key, event))
        entries.append(LogEntry(sequence, user_key, event.item_id, event.event_type, event.value, event.time_us / 1e6))
        by_user[event.user_id].append((sequence, event))
    connection.execute(insert(events), rows)
    changes = tuple(_user_change(user_id, *known[user_id], done) for user_id, done in by_user.items())
    return Change(catalog, before, after, tuple(entries), changes, duplicates)


def lock_sequence(connection: Connection, catalog_key: int) -> int:
    """The catalogue's sequence; no other replica writes to the catalogue until this transaction ends."""
    query = select(catalogs.c.sequence).where(catalogs.c.catalog_key == catalog_key).with_for_update()
    return int(connection.execute(query).scalar_one())


def take_sequence(connection: Connection, catalog_key: int, count: int) -> int:
    """Takes `count` sequence numbers and returns the last."""
    raised = (
        update(catalogs)
        .where(catalogs.c.catalog_key == catalog_key)
        .values(sequence=catalogs.c.sequence + count)
        .returning(catalogs.c.sequence)
    )
    return int(connection.execute(raised).scalar_one())


def read_log(connection: Connection, catalog_key: int, after: int, until: int) -> Iterator[LogPage]:
    """The log after sequence `after`, up to and with `until`, in order, in pages with the sequence each reaches."""
    columns = (
        events.c.sequence,
        events.c.user_key,
        events.c.item_id,
        events.c.event_type,
        events.c.value,
        events.c.time_us,
    )
    gone = select(erasures.c.sequence, erasures.c.user_key).where(
        erasures.c.catalog_key == catalog_key, erasures.c.sequence > after, erasures.c.sequence <= until
    )
    pending = [Erasure(*row) for row in connection.execute(gone.order_by(erasures.c.sequence))]
    pending.reverse()
    while True:
        query = (
            select(*columns)
            .where(events.c.catalog_key == catalog_key, events.c.sequence > after, events.c.sequence <= until)
            .order_by(events.c.sequence)
            .limit(_ENTRIES_PER_PAGE)
        )
        page: list[LogEntry | Erasure] = []
        rows = connection.execute(query).all()
        for sequence, user_key, item_id, event_type, value, time_us in rows:
            while pending and pending[-1].sequence < sequence:
                page.append(pending.pop())
            page.append(LogEntry(sequence, user_key, item_id, event_type, value, time_us / 1e6))
        if len(rows) < _ENTRIES_PER_PAGE:
            page.extend(reversed(pending))
            yield page, until
            return
        yield page, rows[-1][0]
        after = rows[-1][0]


def read_contexts(connection: Connection, catalog_key: int) -> Iterator[tuple[int, EventContext]]:
    """Sequence and circumstances of the events that have any, in order."""
    after = -1
    while True:
        query = (
            select(events.c.sequence, events.c.context)
            .where(events.c.catalog_key == catalog_key, events.c.sequence > after, events.c.context.is_not(None))
            .order_by(events.c.sequence)
            .limit(_ENTRIES_PER_PAGE)
        )
        rows = connection.execute(query).all()
        for sequence, context in rows:
            yield sequence, _context(context)
        if len(rows) < _ENTRIES_PER_PAGE:
            return
        after = rows[-1].sequence


def event_from_row(row: Any, user_id: str) -> Event:
    """A whole stored event."""
    context = None if row.context is None else _context(row.context)
    return Event(
        event_id=row.event_id,
        user_id=user_id,
        event_type=row.event_type,
        item_id=row.item_id,
        value=row.value,
        time_us=row.time_us,
        session_id=row.session_id,
        text=row.text,
        context=context,
        attribution_token=row.attribution_token,
        list_id=row.list_id,
        digest=row.digest,
    )


def _context(text: str) -> EventContext:
    told = json.loads(text)
    return EventContext(told["l"], told["t"], told["d"], told["p"])


def interaction(
    sequence: int, event_type: int, item_id: str, value: float | None, time_us: int, text: str, session_id: str
) -> Interaction:
    """An event as the recommendation sees it: the text of a search only, a comment stays in the store."""
    return Interaction(
        item_id=item_id,
        event_type=event_type,
        strength=RULES[event_type].strength(value),
        time=time_us / 1e6,
        text=text if event_type == pb.EVENT_TYPE_SEARCH else "",
        session_id=session_id,
        sequence=sequence,
    )


def _not_yet_recorded(connection: Connection, catalog_key: int, batch: Sequence[Event]) -> list[Event]:
    digests: dict[str, bytes] = {}
    ids = list({event.event_id for event in batch})
    for start in range(0, len(ids), _IDS_PER_QUERY):
        query = select(events.c.event_id, events.c.digest).where(
            events.c.catalog_key == catalog_key, events.c.event_id.in_(ids[start : start + _IDS_PER_QUERY])
        )
        digests.update((event_id, bytes(digest)) for event_id, digest in connection.execute(query))
    fresh = []
    for event in batch:
        if event.event_id not in digests:
            digests[event.event_id] = event.digest
            fresh.append(event)
        elif digests[event.event_id] != event.digest:
            raise AlreadyExists("event", event.event_id)
    return fresh


def _count_events_of_users(
    connection: Connection, catalog_key: int, fresh: Sequence[Event], sequence: int
) -> dict[str, tuple[int, int, int]]:
    """Makes unknown users and counts the new events; returns (key, version before, version after) by user id."""
    counts = Counter(event.user_id for event in fresh)
    found = find_users(connection, catalog_key, list(counts))
    missing = [user_id for user_id in counts if user_id not in found]
    if missing:
        new_rows = [{"catalog_key": catalog_key, "user_id": user_id} for user_id in missing]
        connection.execute(insert(users), new_rows)
        found |= find_users(connection, catalog_key, missing)
    raised = (
        update(users)
        .where(users.c.user_key == bindparam("key"))
        .values(
            version=users.c.version + bindparam("count"),
            event_count=users.c.event_count + bindparam("count"),
            sequence=sequence,
        )
    )
    connection.execute(raised, [{"key": found[user_id][0], "count": count} for user_id, count in counts.items()])
    return {
        user_id: (found[user_id][0], found[user_id][1], found[user_id][1] + count) for user_id, count in counts.items()
    }


def find_users(connection: Connection, catalog_key: int, user_ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """(key, version) by user id, of those that exist."""
    found: dict[str, tuple[int, int]] = {}
    for start in range(0, len(user_ids), _IDS_PER_QUERY):
        query = select(users.c.user_id, users.c.user_key, users.c.version).where(
            users.c.catalog_key == catalog_key, users.c.user_id.in_(user_ids[start : start + _IDS_PER_QUERY])
        )
        found.update((user_id, (key, version)) for user_id, key, version in connection.execute(query))
    return found


def _row(catalog_key: int, sequence: int, user_key: int, event: Event) -> dict[str, Any]:
    context = None
    if event.context is not None:
        told = event.context
        context = json.dumps(
            {"l": told.locale, "t": told.time_us, "d": told.device, "p": told.place}, ensure_ascii=False
        )
    return {
        "catalog_key": catalog_key,
        "sequence": sequence,
        "event_id": event.event_id,
        "digest": event.digest,
        "user_key": user_key,
        "event_type": event.event_type,
        "item_id": event.item_id,
        "value": event.value,
        "time_us": event.time_us,
        "session_id": event.session_id,
        "text": event.text,
        "context": context,
        "attribution_token": event.attribution_token,
        "list_id": event.list_id,
    }


def _user_change(
    user_id: str, user_key: int, version_before: int, version_after: int, done: Sequence[tuple[int, Event]]
) -> UserChange:
    return UserChange(
        user_id=user_id,
        user_key=user_key,
        version_before=version_before,
        version_after=version_after,
        interactions=tuple(
            interaction(sequence, e.event_type, e.item_id, e.value, e.time_us, e.text, e.session_id)
            for sequence, e in done
            if RULES[e.event_type].in_history
        ),
        seen=frozenset(e.item_id for _, e in done if RULES[e.event_type].marks_seen(e.value)),
        hidden=frozenset(e.item_id for _, e in done if RULES[e.event_type].hides),
        shown=tuple((e.item_id, e.time_us / 1e6) for _, e in done if e.event_type == pb.EVENT_TYPE_IMPRESSION),
    )
