"""What rules ask of retrieval: everything goes along in the one Search of a list.

Ranking never interprets a filter. A BLOCK, and a cap that this user has reached, become negated conditions of the
request's filter, so that what must not be shown takes no places of hits. Every other filter becomes a label: retrieval
says which candidates match. A PIN or an exposure floor also has matching items brought in.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterator, Sequence

import numpy as np

from ranking_service.candidate import Flags, Pool
from ranking_service.rules.caps import conditions_of_caps
from ranking_service.rules.rule import Rule, RuleAction
from ranking_service.taste import Taste
from zhiyin.common.v1.filter_pb2 import Filter, FilterList
from zhiyin.retrieval.v1.retrieval_service_pb2 import SearchQuery, SearchRequest

# Names of queries that are there because of a rule start with this; a source's own never do.
RULE_QUERY = "rule/"

# Bounds of retrieval's contract (filter.proto, SearchRequest).
_MAX_CONDITIONS = 64
_MAX_DEPTH = 8
_MAX_LABELS = 256
_MAX_QUERIES = 32
_MAX_ADDED = 100
# Matching items brought in for a PIN, so that the best of them for this user can be chosen.
_ADDED_FOR_A_PIN = 10
# Of the sources' queries so many, the first, are asked again within a floor's filter, for so many hits.
_QUERIES_FOR_A_FLOOR = 2
_HITS_FOR_A_FLOOR = 30

_REFUSED_LABEL = re.compile(r"\blabels\[(\d+)\]")
_REFUSED_PART = re.compile(r"(?<![\w.\]])filter\.all_of\.filters\[(\d+)\]")


def ask_for_rules(request: SearchRequest, taste: Taste, list_length: int) -> int:
    """Puts what the rules of a list need into its request.

    Args:
        request: Changed in place.
        taste: With the rules in force.
        list_length: Places of the list, which say how many items a floor may need.

    Returns:
        How many filters retrieval cannot be asked about: a Search has room for so many different ones.
    """
    rules = taste.query.rules
    beyond = _forbid(request, forbidden(taste))
    added = dict.fromkeys((label_of(condition) for condition in beyond), 0)
    filters = {label_of(condition): condition for condition in beyond}
    for rule in rules:
        if rule.action in (RuleAction.BLOCK, RuleAction.FREQUENCY_CAP) or not is_filter(rule.filter):
            continue
        name = label_of(rule.filter)
        filters[name] = rule.filter
        added[name] = max(added.get(name, 0), _to_add(rule, list_length))
    for name, condition in list(filters.items())[:_MAX_LABELS]:
        request.labels.add(name=name, filter=condition, add=added[name])
    for floor, rule in enumerate(rules):
        if rule.action is RuleAction.EXPOSURE_FLOOR and is_filter(rule.filter):
            request.queries.extend(_asked_again(request, floor, rule.filter))
    if any(rule.action is RuleAction.QUOTA and rule.per_field not in ("", "categories") for rule in rules):
        request.read_mask.paths.append("attributes")
    return max(len(filters) - _MAX_LABELS, 0)


def label_of(condition: Filter) -> str:
    """The name under which retrieval says what matches: rules with the same filter share it."""
    return hashlib.blake2b(condition.SerializeToString(deterministic=True), digest_size=12).hexdigest()


def is_filter(condition: Filter) -> bool:
    """Whether a filter asks anything; one that does not matches everything."""
    return condition.WhichOneof("condition") is not None


def matching(pool: Pool, rule: Rule) -> Flags:
    """Which candidates a rule is about, shape (n,)."""
    if not is_filter(rule.filter):
        return np.ones(len(pool), dtype=bool)
    flags = pool.labels.get(label_of(rule.filter))
    return np.zeros(len(pool), dtype=bool) if flags is None else flags


def forbidden(taste: Taste) -> list[Filter]:
    """What must not be in the list: blocked items, and those of a cap that the user has reached."""
    blocked = [rule.filter for rule in taste.query.rules if rule.action is RuleAction.BLOCK]
    return [*blocked, *conditions_of_caps(taste)]


def refused_rules(request: SearchRequest, taste: Taste, details: str) -> frozenset[str]:
    """Ids of the rules whose filter retrieval refused, by the places that its answer names; none: it was not a rule's.

    A filter that fitted when the rule was put may not fit any more: an attribute gets its type by the first item that
    has it.
    """
    refused = {request.labels[int(n)].name for n in _REFUSED_LABEL.findall(details) if int(n) < len(request.labels)}
    parts = request.filter.all_of.filters
    for number in map(int, _REFUSED_PART.findall(details)):
        if number < len(parts) and parts[number].WhichOneof("condition") == "negated":
            refused.add(label_of(parts[number].negated))
    faulty = {rule.id for rule in taste.query.rules if is_filter(rule.filter) and label_of(rule.filter) in refused}
    # A cap's condition is made for the user; its label says nothing about the rule.
    for rule in taste.query.rules:
        if rule.action is RuleAction.FREQUENCY_CAP:
            faulty |= {rule.id for condition in conditions_of_caps(taste, rule) if label_of(condition) in refused}
    return frozenset(faulty)


def _forbid(request: SearchRequest, conditions: Sequence[Filter]) -> list[Filter]:
    """Adds negated conditions to the request's filter; returns those for which its limits leave no room."""
    if not conditions:
        return []
    parts = [request.filter] if is_filter(request.filter) else []
    size = 1 + sum(_size(part) for part in parts)
    if any(_depth(part) >= _MAX_DEPTH for part in parts):
        return list(conditions)
    beyond = []
    for condition in conditions:
        if size + 1 + _size(condition) > _MAX_CONDITIONS or _depth(condition) + 2 > _MAX_DEPTH:
            beyond.append(condition)
        else:
            parts.append(Filter(negated=condition))
            size += 1 + _size(condition)
    request.filter.CopyFrom(Filter(all_of=FilterList(filters=parts)))
    return beyond


def _to_add(rule: Rule, list_length: int) -> int:
    if rule.action is RuleAction.PIN:
        return _ADDED_FOR_A_PIN
    if rule.action is RuleAction.EXPOSURE_FLOOR:
        return min(math.ceil(rule.min_share * list_length), _MAX_ADDED)
    return 0


def _asked_again(request: SearchRequest, floor: int, condition: Filter) -> Iterator[SearchQuery]:
    """Some of the sources' queries once more within a floor's filter: the house's items that fit this user best."""
    room = min(_MAX_QUERIES - len(request.queries), _QUERIES_FOR_A_FLOOR)
    own = [query for query in request.queries if not query.name.startswith(RULE_QUERY)]
    for query in own[:room]:
        again = SearchQuery()
        again.CopyFrom(query)
        again.name = f"{RULE_QUERY}{floor}/{query.name}"
        again.limit, again.score_all = _HITS_FOR_A_FLOOR, False
        if is_filter(query.filter):
            again.filter.CopyFrom(Filter(all_of=FilterList(filters=[query.filter, condition])))
        else:
            again.filter.CopyFrom(condition)
        if _depth(again.filter) <= _MAX_DEPTH and _size(again.filter) <= _MAX_CONDITIONS:
            yield again


def _parts(condition: Filter) -> Sequence[Filter]:
    kind = condition.WhichOneof("condition")
    if kind == "negated":
        return [condition.negated]
    if kind in ("all_of", "any_of"):
        return list(getattr(condition, kind).filters)
    return []


def _size(condition: Filter) -> int:
    return 1 + sum(_size(part) for part in _parts(condition))


def _depth(condition: Filter) -> int:
    return 1 + max((_depth(part) for part in _parts(condition)), default=0)
