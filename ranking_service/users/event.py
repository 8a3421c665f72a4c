"""One thing somebody did, as the domain sees it, and what the folds of the event log read of it."""

from __future__ import annotations

import hashlib
import secrets
import struct
import time
from dataclasses import dataclass
from typing import NamedTuple

_DIGEST_BYTES = 16


@dataclass(frozen=True, slots=True)
class EventContext:
    """Circumstances of an event, as the caller told them. `time_us` is None when not told."""

    locale: str = ""
    time_us: int | None = None
    device: str = ""
    place: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """One checked event of a request.

    Attributes:
        event_id: The caller's id, or one made here (`make_event_id`).
        event_type: The zhiyin.ranking.v1.EventType number.
        time_us: Microseconds since 1970, the resolution the store keeps.
        list_id: The list the attribution token names; empty without a token.
        digest: `content_digest` of what the caller sent.
    """

    event_id: str
    user_id: str
    event_type: int
    item_id: str
    value: float | None
    time_us: int
    session_id: str = ""
    text: str = ""
    context: EventContext | None = None
    attribution_token: str = ""
    list_id: str = ""
    digest: bytes = b""


class LogEntry(NamedTuple):
    """What the statistics read of one recorded event. `user_key` is the store's number for the user, never the id."""

    sequence: int
    user_key: int
    item_id: str
    event_type: int
    value: float | None
    time: float


class Erasure(NamedTuple):
    """The log's note that everything of a user went, at this sequence."""

    sequence: int
    user_key: int


def make_event_id() -> str:
    """An id for an event that came without one. Starts with the time, so that the store's index grows at its end."""
    return f"zy-{time.time_ns():016x}-{secrets.token_hex(8)}"


def content_digest(
    user_id: str,
    event_type: int,
    item_id: str,
    value: float | None,
    time_us: int | None,
    session_id: str,
    text: str,
    context: EventContext | None,
    attribution_token: str,
) -> bytes:
    """A digest that two events share when the caller sent the same content, today or in a later release.

    A time that was not sent is part of the content as such: a retry without a time is the same event, although the
    server's clock has moved. Fields are length-prefixed, so no two contents read alike.
    """
    hasher = hashlib.blake2b(digest_size=_DIGEST_BYTES)
    texts = [user_id, item_id, session_id, text, attribution_token]
    if context is not None:
        texts += [context.locale, context.device, context.place]
    # As text: the digest is made before the request is checked, and a time may be any 64-bit number of seconds.
    texts += ["" if moment is None else str(moment) for moment in (time_us, context.time_us if context else None)]
    for part in texts:
        encoded = part.encode()
        hasher.update(struct.pack("<I", len(encoded)))
        hasher.update(encoded)
    hasher.update(struct.pack("<i?d", event_type, value is not None, value or 0.0))
    return hasher.digest()
