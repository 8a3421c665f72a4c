"""Which of the items most like an explained one were kept out of its list, and by what.

Retrieval leaves out what filters and rules drop before it counts hits, so a list never sees it. Found out when somebody
asks, by one search for the item's neighbours without these filters; so it is of now, but for what the user did since
the list, which is left out again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import replace

from google.protobuf.field_mask_pb2 import FieldMask

from ranking_service.clients import Retrieval
from ranking_service.filters.filters import FILTERS
from ranking_service.merge import label_flags
from ranking_service.query import Query
from ranking_service.rules.caps import conditions_of_caps
from ranking_service.rules.questions import is_filter
from ranking_service.rules.rule import Rule, RuleAction
from ranking_service.taste import Taste, first_impression
from ranking_service.users.user_state import UserState
from zhiyin.common.v1.filter_pb2 import Filter
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2
from zhiyin.retrieval.v1.retrieval_service_pb2 import Examples, SearchQuery, SearchRequest, WeightedItem

_NEIGHBOURS = 200
_MOST = 50
_MAX_LABELS = 64


async def dropped_neighbours(
    retrieval: Retrieval, query: Query, state: UserState, item_id: str, served: Set[str], collapsed: Set[str]
) -> list[pb2.DroppedCandidate]:
    """The neighbours that a filter or a rule kept away, the most alike first.

    Args:
        retrieval: Knows the neighbours.
        query: Of the list, with its rules.
        state: The user as of the list (`as_of`).
        item_id: The explained item.
        served: Ids of the list: they were not dropped.
        collapsed: Ids that a COLLAPSE rule dropped from it.

    Raises:
        ZhiyinError: Retrieval is down, or refuses the request's filter by now.
    """
    taste = first_impression(query, state)
    by_filter = {drop.__name__: drop(taste) for drop in FILTERS}
    rules = _keeping_away(taste)
    # A filter of the request that does not hold any more is an error of its own; one of a rule must not be.
    request = SearchRequest(
        catalog=query.catalog,
        queries=[
            SearchQuery(
                name="like", limit=_NEIGHBOURS, examples=Examples(items=[WeightedItem(item_id=item_id, weight=1.0)])
            )
        ],
        filter=query.filter,
        exclude_item_ids=[item_id],
        read_mask=FieldMask(paths=["id"]),
    )
    for name, condition in rules.items():
        request.labels.add(name=name, filter=condition)
    reply = await retrieval.search(request)
    labels = label_flags(reply)
    found = []
    for index, score in zip(reply.results[0].item_indices, reply.results[0].scores, strict=True):
        neighbour = reply.items[index].id
        if neighbour in served:
            continue
        names = [name for name, ids in by_filter.items() if neighbour in ids]
        names += ["collapsed"] if neighbour in collapsed else []
        names += [name.rpartition("/")[0] for name, flags in labels.items() if flags[index]]
        if names:
            found.append(pb2.DroppedCandidate(item_id=neighbour, filter=names[0], similarity=score))
    return found[:_MOST]


def as_of(state: UserState, event_sequence: int) -> UserState:
    """A user without what was done after a moment of the event log, as far as the recent interactions tell."""
    before = tuple(each for each in state.recent if each.sequence <= event_sequence)
    later = {each.item_id for each in state.recent if each.sequence > event_sequence}
    later -= {each.item_id for each in before}
    return replace(state, recent=before, seen=state.seen - later, hidden=state.hidden - later)


def _keeping_away(taste: Taste) -> Mapping[str, Filter]:
    """Conditions of the rules that keep items out of a list, by label."""
    found: dict[str, Filter] = {}
    for rule in taste.query.rules:
        for number, condition in enumerate(_conditions(taste, rule)):
            if is_filter(condition) and len(found) < _MAX_LABELS:
                found[f"rule:{rule.id}/{number}"] = condition
    return found


def _conditions(taste: Taste, rule: Rule) -> Sequence[Filter]:
    if rule.action is RuleAction.BLOCK:
        return [rule.filter]
    return conditions_of_caps(taste, rule) if rule.action is RuleAction.FREQUENCY_CAP else []
