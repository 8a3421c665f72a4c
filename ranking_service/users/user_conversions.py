"""Users and events between the wire and the domain. Reading notes every violation, never only the first."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence

from google.protobuf.timestamp_pb2 import Timestamp

from ranking_service.users import event_types
from ranking_service.users.event import Event, EventContext, content_digest, make_event_id
from ranking_service.users.event_types import RULES
from ranking_service.users.user import MAX_FOLLOWS, MAX_PROFILE_BYTES, WRITABLE_FIELDS, Profile, StoredUser, UserWrite
from service_runtime import attributes
from service_runtime.errors import InvalidRequest
from service_runtime.signed_token import TokenSigner
from service_runtime.validation import Violations
from zhiyin.ranking.v1 import ranking_service_pb2 as pb

_MAX_EVENT_ID_BYTES = 128
_MAX_SESSION_ID_BYTES = 128
_MAX_TEXT_BYTES = 4_096
_MAX_CONTEXT_WORD_BYTES = 64
_MAX_AHEAD_US = 86_400 * 1_000_000


def now_us() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1_000


def events_from_proto(catalog: str, messages: Sequence[pb.Event], max_events: int, signer: TokenSigner) -> list[Event]:
    """The checked events of a request.

    Raises:
        InvalidRequest: With every violation found.
    """
    violations = Violations()
    violations.check_catalog("catalog", catalog)
    violations.check_count("events", len(messages), 1, max_events)
    events = []
    if len(messages) <= max_events:
        received_us = now_us()
        events = [
            _event(violations, f"events[{i}]", catalog, message, received_us, signer)
            for i, message in enumerate(messages)
        ]
    violations.raise_if_any()
    return events


def event_to_proto(event: Event) -> pb.Event:
    """A stored event for the wire."""
    message = pb.Event(
        event_id=event.event_id,
        user_id=event.user_id,
        type=pb.EventType.ValueType(event.event_type),
        item_id=event.item_id,
        session_id=event.session_id,
        text=event.text,
        attribution_token=event.attribution_token,
    )
    if event.value is not None:
        message.value = event.value
    message.time.CopyFrom(timestamp(event.time_us))
    if event.context is not None:
        message.context.locale = event.context.locale
        message.context.device = event.context.device
        message.context.place = event.context.place
        if event.context.time_us is not None:
            message.context.time.CopyFrom(timestamp(event.context.time_us))
    return message


def users_from_proto(request: pb.UpsertUsersRequest, max_users: int) -> list[UserWrite]:
    """The checked users of a request.

    Raises:
        InvalidRequest: With every violation found.
    """
    violations = Violations()
    violations.check_catalog("catalog", request.catalog)
    violations.check_count("users", len(request.users), 1, max_users)
    for path in request.update_mask.paths:
        if path not in WRITABLE_FIELDS:
            violations.add("update_mask", f"names {path!r}; use {', '.join(sorted(WRITABLE_FIELDS))}")
    fields = frozenset(request.update_mask.paths) or WRITABLE_FIELDS
    first_at: dict[str, int] = {}
    for i, user in enumerate(request.users[:max_users]):
        path = f"users[{i}]"
        violations.check_id(f"{path}.id", user.id)
        if first_at.setdefault(user.id, i) != i:
            violations.add(f"{path}.id", f"is that of users[{first_at[user.id]}]; write each user once")
        violations.check_text(f"{path}.profile", user.profile, MAX_PROFILE_BYTES)
        attributes.check(violations, f"{path}.attributes", user.attributes)
        violations.check_count(f"{path}.follows", len(user.follows), 0, MAX_FOLLOWS)
        for j, followed in enumerate(user.follows):
            violations.check_id(f"{path}.follows[{j}]", followed)
    violations.raise_if_any()
    return [
        UserWrite(
            user.id,
            Profile(user.profile, attributes.from_proto(user.attributes), tuple(dict.fromkeys(user.follows))),
            fields,
            user.revision if request.check_revision else None,
        )
        for user in request.users
    ]


def user_to_proto(user: StoredUser) -> pb.User:
    """A stored user for the wire."""
    message = pb.User(
        id=user.user_id,
        profile=user.profile.text,
        follows=user.profile.follows,
        revision=user.revision,
        event_count=user.event_count,
    )
    attributes.to_proto(user.profile.attributes, message.attributes)
    if user.updated_us:
        message.updated_at.CopyFrom(timestamp(user.updated_us))
    return message


def check_user_request(catalog: str, user_id: str) -> None:
    """A request that names one user.

    Raises:
        InvalidRequest: With every violation found.
    """
    violations = Violations()
    violations.check_catalog("catalog", catalog)
    violations.check_id("user_id", user_id)
    violations.raise_if_any()


def timestamp(time_us: int) -> Timestamp:
    """A moment for the wire."""
    seconds, micros = divmod(time_us, 1_000_000)
    return Timestamp(seconds=seconds, nanos=micros * 1_000)


def _event(
    violations: Violations, path: str, catalog: str, message: pb.Event, received_us: int, signer: TokenSigner
) -> Event:
    if message.event_id:
        violations.check_id(f"{path}.event_id", message.event_id, _MAX_EVENT_ID_BYTES)
    violations.check_id(f"{path}.user_id", message.user_id)
    if message.session_id:
        violations.check_id(f"{path}.session_id", message.session_id, _MAX_SESSION_ID_BYTES)
    violations.check_text(f"{path}.text", message.text, _MAX_TEXT_BYTES)
    value = message.value if message.HasField("value") else None
    _check_type(violations, path, message, value)
    sent_us = _time_us(violations, f"{path}.time", message.time) if message.HasField("time") else None
    if sent_us is not None and sent_us > received_us + _MAX_AHEAD_US:
        violations.add(f"{path}.time", "is more than a day ahead of this server's clock")
    context = _context(violations, f"{path}.context", message.context) if message.HasField("context") else None
    return Event(
        event_id=message.event_id or make_event_id(),
        user_id=message.user_id,
        event_type=int(message.type),
        item_id=message.item_id,
        value=value,
        time_us=received_us if sent_us is None else sent_us,
        session_id=message.session_id,
        text=message.text,
        context=context,
        attribution_token=message.attribution_token,
        list_id=_list_id(violations, f"{path}.attribution_token", catalog, message, signer),
        digest=content_digest(
            message.user_id,
            int(message.type),
            message.item_id,
            value,
            sent_us,
            message.session_id,
            message.text,
            context,
            message.attribution_token,
        ),
    )


def _check_type(violations: Violations, path: str, message: pb.Event, value: float | None) -> None:
    rule = RULES.get(message.type)
    if rule is None:
        violations.add(f"{path}.type", f"is {int(message.type)}, which is no event type of this release")
        return
    if message.type == pb.EVENT_TYPE_SEARCH:
        if message.item_id:
            violations.add(f"{path}.item_id", "is set; a SEARCH has no item")
        if not message.text.strip():
            violations.add(f"{path}.text", "is empty; a SEARCH carries its query")
    else:
        violations.check_id(f"{path}.item_id", message.item_id)
    if value is None:
        if rule.value_needed:
            low, high = rule.value_range or (-math.inf, math.inf)
            violations.add(
                f"{path}.value", f"is not set; a {event_types.name(message.type)} needs one from {low:g} to {high:g}"
            )
    elif rule.value_range is not None:
        violations.check_range(f"{path}.value", value, *rule.value_range)
    elif not math.isfinite(value):
        violations.add(f"{path}.value", "is not a finite number")


def _context(violations: Violations, path: str, message: pb.RecommendContext) -> EventContext:
    for name in ("locale", "device", "place"):
        violations.check_text(f"{path}.{name}", getattr(message, name), _MAX_CONTEXT_WORD_BYTES)
    time_us = _time_us(violations, f"{path}.time", message.time) if message.HasField("time") else None
    return EventContext(message.locale, time_us, message.device, message.place)


def _time_us(violations: Violations, path: str, message: Timestamp) -> int:
    violations.check_timestamp(path, message)
    return message.seconds * 1_000_000 + message.nanos // 1_000


def _list_id(violations: Violations, path: str, catalog: str, message: pb.Event, signer: TokenSigner) -> str:
    if not message.attribution_token:
        return ""
    try:
        payload = signer.verify("attribution", message.attribution_token, path)
    except InvalidRequest as error:
        violations.found.extend(error.violations)
        return ""
    if payload.get("c") != catalog or payload.get("i") != message.item_id:
        violations.add(path, "is of another item or catalogue; send the token that came with this item")
    return str(payload.get("l", ""))
