"""Users in the store: writing, erasing and reading them."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

from sqlalchemy import Connection, and_, delete, insert, or_, select, update

from ranking_service.users.event import Erasure, Event
from ranking_service.users.event_types import RULES
from ranking_service.users.store.event_rows import (
    event_from_row,
    find_users,
    interaction,
    lock_sequence,
    take_sequence,
)
from ranking_service.users.store.schema import attribute_kinds, erasures, events, follows, users
from ranking_service.users.user import Change, Profile, StoredUser, UserChange, UserWrite
from ranking_service.users.user_state import UserState
from service_runtime import attributes
from service_runtime.attributes import AttributeScalar
from service_runtime.errors import InvalidRequest, RevisionConflict, Violation

_HISTORY_TYPES = [number for number, rule in RULES.items() if rule.in_history]
_KIND_NAMES = {"s": "a string", "n": "a number", "b": "a boolean", "l": "a list of strings", "t": "a time"}


def upsert_users(
    connection: Connection,
    catalog: str,
    catalog_key: int,
    writes: Sequence[UserWrite],
    now_us: int,
    validate_only: bool,
) -> Change:
    """Writes users, all or none.

    Raises:
        RevisionConflict: A stored revision is not the expected one.
        InvalidRequest: An attribute has another type in this catalogue.
    """
    before = lock_sequence(connection, catalog_key)
    kinds = _check_attribute_kinds(connection, catalog_key, writes)
    stored = [_find_user(connection, catalog_key, write.user_id) for write in writes]
    for write, row in zip(writes, stored, strict=True):
        revision = row.revision if row is not None else 0
        if write.expected_revision is not None and write.expected_revision != revision:
            raise RevisionConflict(
                f"user {write.user_id!r} is at revision {revision}, not {write.expected_revision}; "
                "read it again and repeat"
            )
    if validate_only:
        revisions = tuple(row.revision if row is not None else 0 for row in stored)
        return Change(catalog, before, before, revisions=revisions)
    after = take_sequence(connection, catalog_key, 1)
    if kinds:
        new_kinds = [{"catalog_key": catalog_key, "name": name, "kind": kind} for name, kind in kinds.items()]
        connection.execute(insert(attribute_kinds), new_kinds)
    changes = tuple(
        _write_user(connection, catalog_key, write, row, after, now_us)
        for write, row in zip(writes, stored, strict=True)
    )
    revisions = tuple((row.revision if row is not None else 0) + 1 for row in stored)
    return Change(catalog, before, after, users=changes, revisions=revisions)


def erase_user(connection: Connection, catalog: str, catalog_key: int, user_id: str) -> Change:
    """Deletes everything about a user, and the user's id from those who follow it; notes the erasure in the log."""
    before = lock_sequence(connection, catalog_key)
    found = find_users(connection, catalog_key, [user_id])
    following = select(follows.c.user_key).where(follows.c.followed_id == user_id)
    is_follower = and_(users.c.catalog_key == catalog_key, users.c.user_key.in_(following))
    followers = connection.execute(select(users.c.user_id, users.c.user_key).where(is_follower)).all()
    if not found and not followers:
        return Change(catalog, before, before)
    after = take_sequence(connection, catalog_key, 1)
    connection.execute(update(users).where(is_follower).values(version=users.c.version + 1, sequence=after))
    in_catalog = select(users.c.user_key).where(users.c.catalog_key == catalog_key)
    connection.execute(delete(follows).where(follows.c.followed_id == user_id, follows.c.user_key.in_(in_catalog)))
    changes = [UserChange(follower, key, reread=True) for follower, key in followers]
    entries: tuple[Erasure, ...] = ()
    deleted = 0
    if found:
        key, _ = found[user_id]
        deleted = connection.execute(delete(events).where(events.c.user_key == key)).rowcount
        connection.execute(delete(follows).where(follows.c.user_key == key))
        connection.execute(delete(users).where(users.c.user_key == key))
        connection.execute(insert(erasures).values(catalog_key=catalog_key, sequence=after, user_key=key))
        entries = (Erasure(after, key),)
        changes.append(UserChange(user_id, key, reread=True))
    return Change(catalog, before, after, entries, tuple(changes), deleted_events=deleted, existed=bool(found))


def load_state(connection: Connection, catalog_key: int, user_id: str, max_recent: int) -> UserState:
    """A user as the recommendation sees them."""
    row = _find_user(connection, catalog_key, user_id)
    if row is None:
        return UserState(user_id)
    recent = connection.execute(
        select(
            events.c.sequence,
            events.c.event_type,
            events.c.item_id,
            events.c.value,
            events.c.time_us,
            events.c.text,
            events.c.session_id,
        )
        .where(events.c.user_key == row.user_key, events.c.event_type.in_(_HISTORY_TYPES))
        .order_by(events.c.time_us.desc(), events.c.sequence.desc())
        .limit(max_recent)
    ).all()
    profile = _profile(connection, row)
    return UserState(
        user_id=user_id,
        known=True,
        profile=profile.text,
        attributes=profile.attributes,
        follows=profile.follows,
        recent=tuple(interaction(*event) for event in reversed(recent)),
        seen=_items(connection, row.user_key, _seen_condition()),
        hidden=_items(
            connection,
            row.user_key,
            events.c.event_type.in_([number for number, rule in RULES.items() if rule.hides]),
        ),
        version=row.version,
        key=row.user_key,
    )


def load_user(connection: Connection, catalog_key: int, user_id: str) -> StoredUser | None:
    """A user as GetUser shows it."""
    row = _find_user(connection, catalog_key, user_id)
    if row is None:
        return None
    return StoredUser(user_id, _profile(connection, row), row.revision, row.updated_us, row.event_count)


def load_attributes(connection: Connection, catalog_key: int) -> Iterator[tuple[int, dict[str, AttributeScalar]]]:
    """Attributes of all users who have any, by the key of the user."""
    query = select(users.c.user_key, users.c.attributes).where(
        users.c.catalog_key == catalog_key, users.c.attributes != "{}"
    )
    for key, text in connection.execute(query):
        yield key, attributes.from_json(json.loads(text))


def load_events(
    connection: Connection, catalog_key: int, user_id: str, after: tuple[int, int] | None, limit: int
) -> tuple[list[Event], tuple[int, int] | None]:
    """Some of a user's events, oldest first, and the place to go on from; None: these were the last."""
    found = find_users(connection, catalog_key, [user_id])
    if not found:
        return [], None
    query = select(events).where(events.c.user_key == found[user_id][0])
    if after is not None:
        time_us, sequence = after
        later = and_(events.c.time_us == time_us, events.c.sequence > sequence)
        query = query.where(or_(events.c.time_us > time_us, later))
    rows = connection.execute(query.order_by(events.c.time_us, events.c.sequence).limit(limit)).all()
    place = (rows[-1].time_us, rows[-1].sequence) if len(rows) == limit else None
    return [event_from_row(row, user_id) for row in rows], place


def changed_users(connection: Connection, catalog_key: int, after: int) -> list[str]:
    """Ids of the users that writes after sequence `after` touched."""
    query = select(users.c.user_id).where(users.c.catalog_key == catalog_key, users.c.sequence > after)
    return list(connection.execute(query).scalars())


def erased_users(connection: Connection, catalog_key: int, after: int) -> list[int]:
    """Keys of the users that were erased after sequence `after`."""
    query = select(erasures.c.user_key).where(erasures.c.catalog_key == catalog_key, erasures.c.sequence > after)
    return list(connection.execute(query).scalars())


def _write_user(
    connection: Connection, catalog_key: int, write: UserWrite, row: Any, sequence: int, now_us: int
) -> UserChange:
    if row is None:
        made = insert(users).values(catalog_key=catalog_key, user_id=write.user_id).returning(users.c.user_key)
        key, version, revision = int(connection.execute(made).scalar_one()), 0, 0
        old = Profile()
    else:
        key, version, revision = row.user_key, row.version, row.revision
        old = _profile(connection, row)
    new = Profile(
        write.profile.text if "profile" in write.fields else old.text,
        write.profile.attributes if "attributes" in write.fields else old.attributes,
        write.profile.follows if "follows" in write.fields else old.follows,
    )
    connection.execute(
        update(users)
        .where(users.c.user_key == key)
        .values(
            profile=new.text,
            attributes=json.dumps(attributes.to_json(new.attributes), ensure_ascii=False),
            revision=revision + 1,
            version=version + 1,
            sequence=sequence,
            updated_us=now_us,
        )
    )
    if new.follows != old.follows:
        connection.execute(delete(follows).where(follows.c.user_key == key))
        if new.follows:
            rows = [
                {"user_key": key, "position": position, "followed_id": followed}
                for position, followed in enumerate(new.follows)
            ]
            connection.execute(insert(follows), rows)
    return UserChange(write.user_id, key, version, version + 1, profile=new)


def _check_attribute_kinds(connection: Connection, catalog_key: int, writes: Sequence[UserWrite]) -> dict[str, str]:
    """The kinds of attributes that are new to the catalogue."""
    query = select(attribute_kinds.c.name, attribute_kinds.c.kind).where(attribute_kinds.c.catalog_key == catalog_key)
    known: dict[str, str] = dict(connection.execute(query).all())
    new: dict[str, str] = {}
    violations = []
    for i, write in enumerate(writes):
        if "attributes" not in write.fields:
            continue
        for name, (kind, _) in attributes.to_json(write.profile.attributes).items():
            first = known.get(name) or new.setdefault(name, str(kind))
            if first != kind:
                violations.append(
                    Violation(
                        f"users[{i}].attributes[{name}]",
                        f"is {_KIND_NAMES[str(kind)]}; in this catalogue it is {_KIND_NAMES[first]}",
                    )
                )
    if violations:
        raise InvalidRequest(violations)
    return new


def _find_user(connection: Connection, catalog_key: int, user_id: str) -> Any:
    query = select(users).where(users.c.catalog_key == catalog_key, users.c.user_id == user_id)
    return connection.execute(query).one_or_none()


def _profile(connection: Connection, row: Any) -> Profile:
    query = select(follows.c.followed_id).where(follows.c.user_key == row.user_key).order_by(follows.c.position)
    followed = tuple(connection.execute(query).scalars())
    return Profile(row.profile, attributes.from_json(json.loads(row.attributes)), followed)


def _seen_condition() -> Any:
    always = events.c.event_type.in_([number for number, rule in RULES.items() if rule.seen])
    by_value = [
        and_(events.c.event_type == number, events.c.value >= rule.seen_from_value)
        for number, rule in RULES.items()
        if rule.seen_from_value is not None
    ]
    return or_(always, *by_value)


def _items(connection: Connection, user_key: int, condition: Any) -> frozenset[str]:
    query = select(events.c.item_id).where(events.c.user_key == user_key, condition).distinct()
    return frozenset(connection.execute(query).scalars())
