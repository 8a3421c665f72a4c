"""Calls about what a catalogue wants of every list: ranking."""

from __future__ import annotations

from collections.abc import Iterator

from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin_client import methods
from zhiyin_client.sync.calls import Calls


class RuleCalls(Calls):
    """Rules. All raise ZhiyinError."""

    def put_rule(
        self, rule: ranking.Rule, *, validate_only: bool = False, timeout: float | None = None
    ) -> ranking.Rule:
        """Makes or replaces a rule; gives it as it is kept, with defaults filled in."""
        request = ranking.PutRuleRequest(catalog=self.catalog, rule=rule, validate_only=validate_only)
        return (self._call(methods.PUT_RULE, request, timeout)).rule

    def list_rules(self, *, page_size: int = 0, timeout: float | None = None) -> Iterator[ranking.Rule]:
        """All rules in the order of their ids, fetched page by page; `timeout` is for each page."""
        request = ranking.ListRulesRequest(catalog=self.catalog, page_size=page_size)
        while True:
            page = self._call(methods.LIST_RULES, request, timeout)
            yield from page.rules
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token

    def delete_rule(self, rule_id: str, *, timeout: float | None = None) -> bool:
        """Deletes a rule; says whether there was one."""
        request = ranking.DeleteRuleRequest(catalog=self.catalog, rule_id=rule_id)
        return (self._call(methods.DELETE_RULE, request, timeout)).existed
