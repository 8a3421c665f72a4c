"""Frequency caps: which items a user was shown often enough."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ranking_service.rules.rule import Rule, RuleAction
from ranking_service.taste import Taste
from zhiyin.common.v1.filter_pb2 import FieldIn, Filter, FilterList
from zhiyin.common.v1.item_pb2 import AttributeValue

# Values of one condition (filter.proto).
_MAX_VALUES = 1_024


def shown_enough(shown: Mapping[str, Sequence[float]], max_impressions: int, period_s: float, now: float) -> list[str]:
    """Items with `max_impressions` or more impressions in (now - period, now], those shown last first.

    Args:
        shown: Times of impressions by item, newest first, Unix seconds.
        max_impressions: At least 1.
        period_s: Seconds.
        now: The moment of the list. Later impressions do not count: a list that is made anew for a further page is
            the same although its first page was shown meanwhile.
    """
    latest: dict[str, float] = {}
    for item_id, times in shown.items():
        if len(times) >= max_impressions and times[max_impressions - 1] > now - period_s:
            within = [time for time in times if now - period_s < time <= now]
            if len(within) >= max_impressions:
                latest[item_id] = within[0]
    return sorted(latest, key=lambda item_id: (-latest[item_id], item_id))


def capped_everywhere(taste: Taste) -> frozenset[str]:
    """Items that a cap on all items keeps away."""
    rules = [rule for rule in _caps(taste) if rule.filter.WhichOneof("condition") is None]
    return frozenset(item_id for rule in rules for item_id in _reached(taste, rule))


def conditions_of_caps(taste: Taste, only: Rule | None = None) -> list[Filter]:
    """Of caps on some items: conditions that name what must not be shown."""
    conditions = []
    for rule in _caps(taste):
        if rule.filter.WhichOneof("condition") is None or (only is not None and rule is not only):
            continue
        reached = _reached(taste, rule)
        for start in range(0, len(reached), _MAX_VALUES):
            values = [AttributeValue(string_value=item_id) for item_id in reached[start : start + _MAX_VALUES]]
            named = Filter(field_in=FieldIn(field="id", values=values))
            conditions.append(Filter(all_of=FilterList(filters=[rule.filter, named])))
    return conditions


def needs_impressions(rules: Sequence[Rule]) -> bool:
    """Whether a list has to know what the user was shown."""
    return any(rule.action is RuleAction.FREQUENCY_CAP for rule in rules)


def _caps(taste: Taste) -> list[Rule]:
    return [rule for rule in taste.query.rules if rule.action is RuleAction.FREQUENCY_CAP]


def _reached(taste: Taste, rule: Rule) -> list[str]:
    return shown_enough(taste.state.shown or {}, rule.max_impressions, rule.period_s, taste.query.now)
