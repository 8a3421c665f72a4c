"""Rules between the wire, the store and the domain."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from ranking_service.rules.rule import Rule, RuleAction
from service_runtime.validation import Violations
from zhiyin.common.v1.filter_pb2 import Filter
from zhiyin.ranking.v1 import ranking_service_pb2 as pb

MAX_RULE_ID_BYTES = 128
_MAX_NOTE_BYTES = 1_024
_MAX_PERIOD_S = 30 * 86_400.0
_ATTRIBUTE = re.compile(r"[a-z][a-z0-9_]{0,63}")

# What each action has of its own, by field: True where the caller has to say it, else there is a default.
_FIELDS: Mapping[RuleAction, Mapping[str, bool]] = {
    RuleAction.BOOST: {"strength": False},
    RuleAction.BURY: {"strength": False},
    RuleAction.PIN: {"position": True},
    RuleAction.BLOCK: {},
    RuleAction.QUOTA: {"max_places": True, "window": False, "per_field": False},
    RuleAction.EXPOSURE_FLOOR: {"min_share": True},
    RuleAction.FREQUENCY_CAP: {"max_impressions": True, "period": False},
    RuleAction.COLLAPSE: {"similarity": False},
}
_OWN_FIELDS = sorted({field for fields in _FIELDS.values() for field in fields})
_NEED_A_FILTER = (RuleAction.PIN, RuleAction.BLOCK)
_DEFAULTS = Rule("", RuleAction.BOOST, Filter())


def matches_all(condition: Filter) -> bool:
    """Whether a filter says nothing."""
    kind = condition.WhichOneof("condition")
    return kind is None or (kind == "all_of" and all(matches_all(part) for part in condition.all_of.filters))


def completed(violations: Violations, path: str, message: pb.Rule) -> pb.Rule:
    """A rule as it is kept, defaults filled in and `updated_at` unset; it counts only when nothing wrong was noted.

    What its filter says is left to the catalogue.
    """
    rule = pb.Rule()
    rule.CopyFrom(message)
    rule.ClearField("updated_at")
    violations.check_id(f"{path}.id", rule.id, MAX_RULE_ID_BYTES)
    violations.check_text(f"{path}.note", rule.note, _MAX_NOTE_BYTES)
    _check_times(violations, path, rule)
    try:
        action = RuleAction(rule.action)
    except ValueError:
        violations.add(f"{path}.action", f"is {int(rule.action)}; say what the rule does")
        return rule
    if action in _NEED_A_FILTER and matches_all(rule.filter):
        violations.add(f"{path}.filter", f"matches every item; a {action.name} says which it means")
    for field in _OWN_FIELDS:
        given = bool(rule.per_field) if field == "per_field" else rule.HasField(field)  # type: ignore[arg-type]
        own = _FIELDS[action]
        if given and field not in own:
            violations.add(f"{path}.{field}", f"is set; a {action.name} has none")
        elif not given and own.get(field):
            violations.add(f"{path}.{field}", f"is not set; a {action.name} needs it")
        elif not given and field in own:
            _fill_in(rule, field)
        if given and field in own:
            _CHECKS[field](violations, f"{path}.{field}", rule)
    return rule


def to_domain(message: pb.Rule) -> Rule:
    """A rule as it was kept."""
    action = RuleAction(message.action)
    period = message.period
    return Rule(
        id=message.id,
        action=action,
        filter=message.filter,
        strength=message.strength if message.HasField("strength") else _DEFAULTS.strength,
        position=message.position,
        max_places=message.max_places,
        window=message.window if message.HasField("window") else _DEFAULTS.window,
        per_field=message.per_field,
        min_share=message.min_share,
        max_impressions=message.max_impressions,
        period_s=_seconds(period) if message.HasField("period") else _DEFAULTS.period_s,
        similarity=message.similarity if message.HasField("similarity") else _DEFAULTS.similarity,
        active_from=_seconds(message.active_from) if message.HasField("active_from") else -math.inf,
        active_until=_seconds(message.active_until) if message.HasField("active_until") else math.inf,
        note=message.note,
        updated_at=_seconds(message.updated_at),
    )


def _seconds(value: Timestamp | Duration) -> float:
    return value.seconds + value.nanos / 1e9


def _check_times(violations: Violations, path: str, rule: pb.Rule) -> None:
    known = []
    for field in ("active_from", "active_until"):
        if rule.HasField(field):
            before = len(violations.found)
            moment: Timestamp = getattr(rule, field)
            violations.check_timestamp(f"{path}.{field}", moment)
            if len(violations.found) == before:
                known.append((moment.seconds, moment.nanos))
    if len(known) == 2 and known[0] >= known[1]:
        violations.add(f"{path}.active_until", "is not after active_from; the rule would never hold")


def _fill_in(rule: pb.Rule, field: str) -> None:
    if field == "period":
        rule.period.FromNanoseconds(int(_DEFAULTS.period_s * 1e9))
    elif field != "per_field":
        setattr(rule, field, getattr(_DEFAULTS, field))


def _range(field: str, low: float, high: float) -> Callable[[Violations, str, pb.Rule], None]:
    return lambda violations, path, rule: violations.check_range(path, getattr(rule, field), low, high)


def _above_zero(field: str, high: float) -> Callable[[Violations, str, pb.Rule], None]:
    def check(violations: Violations, path: str, rule: pb.Rule) -> None:
        value = getattr(rule, field)
        if value <= 0:
            violations.add(path, f"is {value:g}; must be above 0 and at most {high:g}")
        else:
            violations.check_range(path, value, 0.0, high)

    return check


def _max_places(violations: Violations, path: str, rule: pb.Rule) -> None:
    violations.check_range(path, rule.max_places, 1, 100)
    window = rule.window if rule.HasField("window") else _DEFAULTS.window
    if 1 <= rule.max_places <= 100 and rule.max_places >= window:
        violations.add(path, f"is {rule.max_places} of {window} places, which keeps nothing out; name fewer")


def _per_field(violations: Violations, path: str, rule: pb.Rule) -> None:
    if not _ATTRIBUTE.fullmatch(rule.per_field):
        violations.add(path, f"{rule.per_field[:64]!r} is neither `categories` nor the name of an attribute")


def _period(violations: Violations, path: str, rule: pb.Rule) -> None:
    seconds = _seconds(rule.period)
    if not (60.0 <= seconds <= _MAX_PERIOD_S and 0 <= rule.period.nanos < 1_000_000_000):
        violations.add(path, f"is {seconds:g} s; must lie between one minute and 30 days")


_CHECKS: Mapping[str, Callable[[Violations, str, pb.Rule], None]] = {
    "strength": _above_zero("strength", 10.0),
    "position": _range("position", 1, 100),
    "max_places": _max_places,
    "window": _range("window", 2, 100),
    "per_field": _per_field,
    "min_share": _above_zero("min_share", 0.5),
    "max_impressions": _range("max_impressions", 1, 100),
    "period": _period,
    "similarity": _range("similarity", 0.5, 1.0),
}
