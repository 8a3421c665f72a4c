"""What earlier pages of a list showed, when the list has to be made anew: near-duplicates of that must not follow.

An item that was shown may not be a candidate any more: the user acted on it, or its catalogue changed. So the page
token names the items that a COLLAPSE rule is about, and their vectors are read again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ranking_service.candidate import Flags, Floats
from ranking_service.clients import Retrieval, matrix_rows
from ranking_service.merge import label_flags
from ranking_service.query import Query
from ranking_service.rules.questions import is_filter, label_of
from ranking_service.rules.rule import RuleAction
from ranking_service.search_request import SPACE
from zhiyin.retrieval.v1.retrieval_service_pb2 import SearchRequest


@dataclass(frozen=True, slots=True)
class Served:
    """Items of earlier pages.

    Attributes:
        digests: Of all ids, in their order.
        ids: Of those that a COLLAPSE rule was about.
        vectors: Of the items in `ids` that the catalogue still has; shape (m, d).
        labels: Which of these the filter of a rule matches, by label; shape (m,).
    """

    digests: Sequence[bytes] = ()
    ids: Sequence[str] = ()
    vectors: Floats = field(default_factory=lambda: np.zeros((0, 1), np.float32))
    labels: Mapping[str, Flags] = field(default_factory=dict)


NOTHING_SERVED = Served()


class ServedItems:
    """Reads their vectors."""

    def __init__(self, retrieval: Retrieval) -> None:
        self._retrieval = retrieval

    async def read(self, query: Query, served: Served) -> Served:
        """With vectors and labels, as far as a COLLAPSE rule of the query needs them."""
        rules = [rule for rule in query.rules if rule.action is RuleAction.COLLAPSE]
        if not served.ids or not rules:
            return served
        request = SearchRequest(
            catalog=query.catalog,
            hydrate_item_ids=served.ids,
            vectors_space=SPACE,
            # Also what is sold out by now has been shown.
            include_unavailable=True,
        )
        for name, condition in {label_of(rule.filter): rule.filter for rule in rules if is_filter(rule.filter)}.items():
            request.labels.add(name=name, filter=condition)
        reply = await self._retrieval.search(request)
        if not reply.item_vectors.rows:
            return served
        return replace(served, vectors=matrix_rows(reply.item_vectors), labels=label_flags(reply))
