"""Explain: why an item stood where it stood, and the list that it stood in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ranking_service import conversions
from ranking_service.attribution import KIND
from ranking_service.bundles.bundle_store import BundleStore
from ranking_service.rules.caps import needs_impressions
from ranking_service.rules.rule import Rule, RuleBook
from ranking_service.served_lists.dropped_neighbours import as_of, dropped_neighbours
from ranking_service.served_lists.kept_list import KeptList, as_served, kept_list
from ranking_service.served_lists.reproduction import reproduction
from ranking_service.served_lists.served_list_log import ServedListLog
from ranking_service.serving import Serving
from ranking_service.users.user_side import UserSide
from ranking_service.users.user_state import UserState
from service_runtime.errors import InvalidRequest, NotFound, Violation, ZhiyinError
from service_runtime.grpc_types import ServicerContext
from service_runtime.validation import Violations
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

_DAY_S = 86_400.0


class ExplainRpcs:
    """The RPC that looks back."""

    serving: Serving
    user_side: UserSide
    bundles: BundleStore
    served_lists: ServedListLog
    rules_of: Callable[[str], RuleBook]

    async def Explain(self, request: pb2.ExplainRequest, context: ServicerContext) -> pb2.ExplainResponse:
        """The list from the log; beside it what can only be found out now."""
        list_id, item_id, rank = self._token(request)
        await self.user_side.require_catalog(request.catalog)
        kept = kept_list(await self.served_lists.find(request.catalog, list_id), item_id, rank, self.serving.signer)
        if kept is None:
            raise self._gone(list_id)
        state = await self._user_of(kept)
        response = as_served(kept)
        await self._add_dropped(response, kept, state)
        if request.reproduce and kept.page.request.catalog:
            made = await reproduction(self.serving.main, self.serving.signer, self.bundles.pinned, kept)
            response.reproduction.CopyFrom(made)
        return response

    def _token(self, request: pb2.ExplainRequest) -> tuple[str, str, int]:
        """List, item and rank of the token."""
        found = Violations()
        found.check_catalog("catalog", request.catalog)
        if not request.attribution_token:
            found.add("attribution_token", "is empty; pass that of the recommended item")
        found.raise_if_any()
        payload = self.serving.signer.verify(KIND, request.attribution_token, "attribution_token")
        if payload["c"] != request.catalog:
            raise InvalidRequest([Violation("attribution_token", "belongs to another catalogue")])
        return payload["l"], payload["i"], payload["r"]

    async def _user_of(self, kept: KeptList) -> UserState:
        """The user of now.

        Raises:
            NotFound: Whose list it was has been erased, by a replica that this one's memory does not know of.
        """
        record = kept.record
        if not record.user_id:
            return UserState("")
        shown = needs_impressions(self._rules(kept))
        state = await self.user_side.reader.read(record.catalog, record.user_id, with_shown=shown)
        # A key is never given twice.
        if record.user_key not in (0, state.key):
            raise self._gone(record.list_id)
        return state

    def _rules(self, kept: KeptList) -> tuple[Rule, ...]:
        return self.rules_of(kept.record.catalog).in_force(kept.page.now)

    async def _add_dropped(self, response: pb2.ExplainResponse, kept: KeptList, state: UserState) -> None:
        page = kept.page
        if not page.request.catalog:
            return  # a shelf drops the items that it was made for, and nothing else
        query = replace(conversions.recommend_query(page.request), now=page.now, rules=self._rules(kept))
        served = {entry.item.id for entry in kept.entries}
        then = as_of(state, page.response.versions.event_sequence)
        try:
            response.dropped.extend(
                await dropped_neighbours(
                    self.serving.retrieval, query, then, kept.item_id, served, frozenset(page.collapsed)
                )
            )
        except ZhiyinError as error:
            response.degraded.add(component="explain:dropped", reason="UNAVAILABLE", message=error.message)

    def _gone(self, list_id: str) -> NotFound:
        bounds = self.served_lists.bounds
        days = f"{bounds.store_s / _DAY_S:g} days" if bounds.store_s > 0 else "no longer"
        return NotFound(
            "list",
            list_id,
            f"the list of this token is not kept any more: lists of users are kept for {days}, as far as there is "
            f"room for them, all lists for {bounds.memory_s:g} s in the memory of the replica that served them",
        )
