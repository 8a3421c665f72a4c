"""The RPCs about rules."""

from __future__ import annotations

from ranking_service.clients import RetrievalClient
from ranking_service.rules.rule_conversions import MAX_RULE_ID_BYTES, completed, matches_all
from ranking_service.settings import RankingSettings
from ranking_service.users.user_side import UserSide
from service_runtime.errors import ZhiyinError
from service_runtime.signed_token import TokenSigner
from service_runtime.validation import Violations
from zhiyin.common.v1.filter_pb2 import FieldIn, Filter
from zhiyin.common.v1.item_pb2 import AttributeValue
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin.retrieval.v1.retrieval_service_pb2 import NamedFilter

_PAGE_TOKEN = "rules"
_DEFAULT_PAGE, _MAX_PAGE = 100, 1_000


class RuleRpcs:
    """The part of the servicer that keeps rules."""

    user_side: UserSide
    retrieval: RetrievalClient
    signer: TokenSigner
    settings: RankingSettings

    async def PutRule(self, request: pb.PutRuleRequest, context: object) -> pb.PutRuleResponse:
        """Makes or replaces a rule."""
        violations = Violations()
        violations.check_catalog("catalog", request.catalog)
        catalog_is_named = not violations
        rule = completed(violations, "rule", request.rule)
        if catalog_is_named:
            await self._ask_the_catalogue(violations, request.catalog, rule)
        violations.raise_if_any()
        keeper, max_rules = self.user_side.rules, self.settings.max_rules
        kept, change = await keeper.put(request.catalog, rule, max_rules, request.validate_only, request.ByteSize())
        if request.validate_only:
            return pb.PutRuleResponse(rule=rule)
        return pb.PutRuleResponse(rule=kept, consistency_token=self.user_side.token(request.catalog, change.after))

    async def ListRules(self, request: pb.ListRulesRequest, context: object) -> pb.ListRulesResponse:
        """Rules in the order of their ids."""
        violations = Violations()
        violations.check_catalog("catalog", request.catalog)
        if request.page_size > _MAX_PAGE:
            violations.add("page_size", f"is {request.page_size}; at most {_MAX_PAGE} rules a page")
        violations.raise_if_any()
        size = request.page_size or _DEFAULT_PAGE
        after = str(self.signer.page_start(_PAGE_TOKEN, request.page_token, {"catalog": request.catalog}) or "")
        page = await self.user_side.rules.page(request.catalog, after, size + 1)
        token = ""
        if len(page) > size:
            token = self.signer.sign(_PAGE_TOKEN, {"catalog": request.catalog, "after": page[size - 1].id})
        return pb.ListRulesResponse(rules=page[:size], next_page_token=token)

    async def DeleteRule(self, request: pb.DeleteRuleRequest, context: object) -> pb.DeleteRuleResponse:
        """Deletes a rule."""
        violations = Violations()
        violations.check_catalog("catalog", request.catalog)
        violations.check_id("rule_id", request.rule_id, MAX_RULE_ID_BYTES)
        violations.raise_if_any()
        change = await self.user_side.rules.delete(request.catalog, request.rule_id)
        token = self.user_side.token(request.catalog, change.after)
        return pb.DeleteRuleResponse(existed=change.existed, consistency_token=token)

    async def _ask_the_catalogue(self, violations: Violations, catalog: str, rule: pb.Rule) -> None:
        """Notes what retrieval, which alone knows filters and the types of attributes, has against a rule."""
        asked = {}
        if not matches_all(rule.filter):
            asked["rule.filter"] = rule.filter
        if rule.per_field and rule.per_field != "categories":
            asked["rule.per_field"] = _holds_a_word(rule.per_field)
        if not asked:
            return
        labels = [NamedFilter(name=path, filter=condition) for path, condition in asked.items()]
        try:
            found = await self.retrieval.label_faults(catalog, labels)
        except ZhiyinError:
            violations.raise_if_any()  # a retry would not help
            raise
        for i, path in enumerate(asked):
            prefix = f"labels[{i}].filter"
            for fault in found:
                if fault.field.startswith(prefix):
                    # The condition about the field is ours; its path means nothing to the caller.
                    below = fault.field.removeprefix(prefix) if path == "rule.filter" else ""
                    violations.add(path + below, fault.description)


def _holds_a_word(attribute: str) -> Filter:
    """A condition that retrieval refuses for an attribute of another type than string."""
    word = AttributeValue(string_value="any")
    return Filter(field_in=FieldIn(field=f"attributes.{attribute}", values=[word]))
