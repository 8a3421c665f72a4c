"""Rules over a real server: kept, listed, deleted, and every violation of one at once."""

from __future__ import annotations

import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import json_format
from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import given
from hypothesis import strategies as st

from ranking_service.rules.rule import NO_RULES, Rule, RuleAction
from ranking_service.rules.rule_conversions import completed, to_domain
from service_runtime.validation import Violations
from tests.ranking_service.recommend_harness import Harness, item, running_ranking
from zhiyin.common.v1.filter_pb2 import FieldIn, Filter, FilterList
from zhiyin.common.v1.item_pb2 import AttributeValue
from zhiyin.ranking.v1 import ranking_service_pb2 as pb

FILMS = Filter(field_in=FieldIn(field="categories", values=[AttributeValue(string_value="Films")]))
NAN = float("nan")
MAX_RULES = 5


@pytest.fixture
async def ranking(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running_ranking(tmp_path, item("a", "movie", "Films"), max_rules=MAX_RULES) as harness:
        yield harness


def rule(rule_id: str, action: str, **fields: Any) -> pb.Rule:
    return pb.Rule(id=rule_id, action=pb.RuleAction.Value(f"RULE_ACTION_{action}"), **fields)


async def put(ranking: Harness, kept: pb.Rule, **fields: Any) -> pb.PutRuleResponse:
    request = pb.PutRuleRequest(**{"catalog": "default", **fields}, rule=kept)
    return await ranking.stub.PutRule(request, timeout=10)


async def listed(ranking: Harness, **fields: Any) -> pb.ListRulesResponse:
    return await ranking.stub.ListRules(pb.ListRulesRequest(**{"catalog": "default", **fields}), timeout=10)


async def delete(ranking: Harness, rule_id: str) -> pb.DeleteRuleResponse:
    return await ranking.stub.DeleteRule(pb.DeleteRuleRequest(catalog="default", rule_id=rule_id), timeout=10)


def in_memory(ranking: Harness, catalog: str = "default") -> tuple[Rule, ...]:
    return tuple(ranking.service._user_side.rules.books.of(catalog).rules)


async def refusal(call: Any) -> tuple[grpc.StatusCode, set[str], error_details_pb2.ErrorInfo, set[str]]:
    """Code, fields named, reason, and the names of all details of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    status = rpc_status.from_call(caught.value)
    bad, info = error_details_pb2.BadRequest(), error_details_pb2.ErrorInfo()
    for detail in status.details:
        detail.Unpack(bad)
        detail.Unpack(info)
    kinds = {detail.TypeName().rsplit(".", 1)[-1] for detail in status.details}
    return caught.value.code(), {violation.field for violation in bad.field_violations}, info, kinds


async def test_a_rule_is_kept_with_its_defaults_and_in_memory_at_once(ranking: Harness) -> None:
    before = time.time()
    answer = await put(ranking, rule("raise", "BOOST", filter=FILMS, note="春节活动"))
    assert answer.rule.strength == 1.0
    assert answer.rule.updated_at.ToNanoseconds() / 1e9 >= before - 0.001
    assert answer.consistency_token
    assert list((await listed(ranking)).rules) == [answer.rule]
    assert [(r.id, r.action, r.strength, r.filter) for r in in_memory(ranking)] == [
        ("raise", RuleAction.BOOST, 1.0, FILMS)
    ]
    again = await put(ranking, rule("raise", "BURY", filter=FILMS, strength=2.5))
    assert [r.action for r in (await listed(ranking)).rules] == [pb.RULE_ACTION_BURY]
    assert again.rule.updated_at.ToNanoseconds() > answer.rule.updated_at.ToNanoseconds()
    assert (in_memory(ranking)[0].action, in_memory(ranking)[0].strength) == (RuleAction.BURY, 2.5)


async def test_each_action_is_kept_as_it_came(ranking: Harness) -> None:
    came = [
        rule("block", "BLOCK", filter=FILMS),
        rule("cap", "FREQUENCY_CAP", max_impressions=3, period=Duration(seconds=3600)),
        rule("floor", "EXPOSURE_FLOOR", filter=FILMS, min_share=0.25),
        rule("pin", "PIN", filter=FILMS, position=3),
        rule("quota", "QUOTA", max_places=2, per_field="provider"),
    ]
    for one in came:
        await put(ranking, one)
    kept = {r.id: r for r in in_memory(ranking)}
    assert list(kept) == [r.id for r in came]
    assert kept["cap"].max_impressions == 3
    assert kept["cap"].period_s == 3600.0
    assert kept["floor"].min_share == 0.25
    assert kept["pin"].position == 3
    assert (kept["quota"].max_places, kept["quota"].window, kept["quota"].per_field) == (2, 10, "provider")


async def test_a_deleted_rule_is_gone(ranking: Harness) -> None:
    await put(ranking, rule("a", "COLLAPSE"))
    gone = await delete(ranking, "a")
    assert gone.existed
    assert gone.consistency_token
    assert not (await listed(ranking)).rules
    assert in_memory(ranking) == ()
    assert not (await delete(ranking, "a")).existed


async def test_rules_are_there_after_a_restart(tmp_path: Path) -> None:
    async with running_ranking(tmp_path) as ranking:
        answer = await put(ranking, rule("a", "COLLAPSE"))
        await put(ranking, rule("b", "COLLAPSE", similarity=0.6))
        await delete(ranking, "b")
    async with running_ranking(tmp_path) as ranking:
        assert [r.id for r in in_memory(ranking)] == ["a"]
        assert list((await listed(ranking)).rules) == [answer.rule]
        # The token of before is honoured: the sequence went on from there.
        await ranking.recommend(consistency_token=answer.consistency_token)
        assert await ranking.act("ann", pb.EVENT_TYPE_LIKE, "x")


async def test_rules_of_a_catalogue_are_its_own(ranking: Harness) -> None:
    await put(ranking, rule("a", "COLLAPSE"))
    assert not (await listed(ranking, catalog="empty")).rules
    assert ranking.service._user_side.rules.books.of("empty") is NO_RULES
    for call in (
        put(ranking, rule("a", "COLLAPSE"), catalog="nowhere"),
        put(ranking, rule("a", "BLOCK", filter=FILMS), catalog="nowhere"),
        listed(ranking, catalog="nowhere"),
    ):
        assert (await refusal(call))[0] is grpc.StatusCode.NOT_FOUND


async def test_pages_are_in_the_order_of_the_ids(ranking: Harness) -> None:
    for rule_id in ("b", "中", "a", "Z", "é"):
        await put(ranking, rule(rule_id, "COLLAPSE"))
    first = await listed(ranking, page_size=2)
    assert [r.id for r in first.rules] == ["Z", "a"]
    await delete(ranking, "a")  # the next page goes on behind it all the same
    second = await listed(ranking, page_size=2, page_token=first.next_page_token)
    third = await listed(ranking, page_size=2, page_token=second.next_page_token)
    assert [r.id for r in (*second.rules, *third.rules)] == ["b", "é", "中"]
    assert not third.next_page_token
    for fields in ({"page_token": "forged"}, {"page_token": first.next_page_token, "catalog": "empty"}):
        code, named, _, _ = await refusal(listed(ranking, **fields))
        assert (code, named) == (grpc.StatusCode.INVALID_ARGUMENT, {"page_token"})
    assert (await refusal(listed(ranking, page_size=1001)))[1] == {"page_size"}


async def test_there_are_no_more_than_allowed(ranking: Harness) -> None:
    assert (await ranking.stub.GetLimits(pb.GetLimitsRequest())).max_rules == MAX_RULES
    for i in range(MAX_RULES):
        await put(ranking, rule(str(i), "COLLAPSE"))
    for fields in ({}, {"validate_only": True}):
        code, _, info, kinds = await refusal(put(ranking, rule("one more", "COLLAPSE"), **fields))
        assert (code, info.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_RULES")
        assert kinds == {"ErrorInfo", "QuotaFailure"}  # no hint to retry: waiting does not help
    await put(ranking, rule("0", "COLLAPSE", similarity=0.7))
    await put(ranking, rule("a", "COLLAPSE"), catalog="empty")  # another catalogue has room of its own
    await delete(ranking, "0")
    await put(ranking, rule("one more", "COLLAPSE"))


async def test_what_is_only_checked_is_not_kept(ranking: Harness) -> None:
    answer = await put(ranking, rule("a", "COLLAPSE"), validate_only=True)
    assert (answer.rule.similarity, answer.consistency_token) == (0.95, "")
    assert not answer.rule.HasField("updated_at")
    assert not (await listed(ranking)).rules
    assert in_memory(ranking) == ()


async def test_a_filter_is_not_taken_unseen(ranking: Harness) -> None:
    """Retrieval alone knows filters: while it is down a rule with one waits, and everything else goes on."""
    await put(ranking, rule("a", "COLLAPSE"))
    ranking.retrieval.down = True
    code, _, info, kinds = await refusal(put(ranking, rule("b", "BLOCK", filter=FILMS)))
    assert (code, info.reason) == (grpc.StatusCode.UNAVAILABLE, "RETRIEVAL_UNAVAILABLE")
    assert "RetryInfo" in kinds
    # What is wrong anyway is said at once: a retry would not help.
    code, named, _, _ = await refusal(put(ranking, rule("b", "PIN", filter=FILMS)))
    assert (code, named) == (grpc.StatusCode.INVALID_ARGUMENT, {"rule.position"})
    await put(ranking, rule("c", "COLLAPSE"))
    assert [r.id for r in (await listed(ranking)).rules] == ["a", "c"]
    assert (await delete(ranking, "a")).existed


def moment(seconds: int) -> Timestamp:
    return Timestamp(seconds=seconds)


EVERY_FIELD = {
    "strength": 1.0,
    "position": 1,
    "max_places": 1,
    "window": 5,
    "per_field": "provider",
    "min_share": 0.1,
    "max_impressions": 1,
    "period": Duration(seconds=60),
    "similarity": 0.9,
}
OWN = {
    "BOOST": {"strength"},
    "BURY": {"strength"},
    "PIN": {"position"},
    "BLOCK": set(),
    "QUOTA": {"max_places", "window", "per_field"},
    "EXPOSURE_FLOOR": {"min_share"},
    "FREQUENCY_CAP": {"max_impressions", "period"},
    "COLLAPSE": {"similarity"},
}

NEEDED = {
    "PIN": "position",
    "QUOTA": "max_places",
    "EXPOSURE_FLOOR": "min_share",
    "FREQUENCY_CAP": "max_impressions",
}


@pytest.mark.parametrize("action", OWN)
async def test_fields_of_other_actions_are_refused_all_at_once(action: str, ranking: Harness) -> None:
    code, named, _, _ = await refusal(put(ranking, rule("a", action, filter=FILMS, **EVERY_FIELD)))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert named == {f"rule.{field}" for field in EVERY_FIELD if field not in OWN[action]}


REFUSED: list[tuple[pb.Rule, set[str]]] = [
    (pb.Rule(), {"id", "action"}),
    (pb.Rule(id="a", action=99), {"action"}),  # type: ignore[arg-type]
    (
        rule("\x00", "BOOST", strength=NAN, note="n" * 1025, active_from=moment(1 << 60), position=1),
        {"id", "strength", "note", "active_from", "position"},
    ),
    (rule("i" * 129, "BOOST", strength=0.0), {"id", "strength"}),
    (rule("a", "BURY", strength=10.1), {"strength"}),
    (rule("a", "BURY", strength=-1.0), {"strength"}),
    (rule("a", "PIN"), {"filter", "position"}),
    (rule("a", "PIN", position=0, filter=Filter()), {"filter", "position"}),
    (rule("a", "PIN", position=101, filter=FILMS), {"position"}),
    (rule("a", "BLOCK"), {"filter"}),
    (rule("a", "BLOCK", filter=Filter(all_of=FilterList(filters=[Filter()]))), {"filter"}),
    (rule("a", "QUOTA"), {"max_places"}),
    (rule("a", "QUOTA", max_places=10), {"max_places"}),
    (rule("a", "QUOTA", max_places=0), {"max_places"}),
    (rule("a", "QUOTA", max_places=5, window=5), {"max_places"}),
    (rule("a", "QUOTA", max_places=1, window=1), {"max_places", "window"}),
    (rule("a", "QUOTA", max_places=1, window=101, per_field="attributes.provider"), {"window", "per_field"}),
    (rule("a", "EXPOSURE_FLOOR"), {"min_share"}),
    (rule("a", "EXPOSURE_FLOOR", min_share=0.51), {"min_share"}),
    (rule("a", "EXPOSURE_FLOOR", min_share=0.0), {"min_share"}),
    (rule("a", "FREQUENCY_CAP"), {"max_impressions"}),
    (rule("a", "FREQUENCY_CAP", max_impressions=101, period=Duration(seconds=59)), {"max_impressions", "period"}),
    (rule("a", "FREQUENCY_CAP", max_impressions=1, period=Duration(seconds=30 * 86_400, nanos=1)), {"period"}),
    (rule("a", "FREQUENCY_CAP", max_impressions=1, period=Duration(seconds=60, nanos=-5)), {"period"}),
    (rule("a", "COLLAPSE", similarity=0.49), {"similarity"}),
    (rule("a", "COLLAPSE", similarity=float("inf")), {"similarity"}),
    (rule("a", "COLLAPSE", active_from=moment(9), active_until=moment(9)), {"active_until"}),
]


@pytest.mark.parametrize(("wrong", "fields"), REFUSED, ids=[f"{i}-{sorted(f)}" for i, (_, f) in enumerate(REFUSED)])
def test_everything_wrong_with_a_rule_is_named(wrong: pb.Rule, fields: set[str]) -> None:
    violations = Violations()
    completed(violations, "rule", wrong)
    assert sorted(violation.field for violation in violations.found) == sorted(f"rule.{field}" for field in fields)


@given(
    action=st.sampled_from(sorted(OWN)),
    given_fields=st.fixed_dictionaries({}, optional={name: st.just(value) for name, value in EVERY_FIELD.items()}),
    times=st.fixed_dictionaries({}, optional={"active_from": st.just(moment(5)), "active_until": st.just(moment(9))}),
)
def test_a_completed_rule_is_complete_and_says_the_same_again(
    action: str, given_fields: dict[str, Any], times: dict[str, Timestamp]
) -> None:
    fields = {name: value for name, value in given_fields.items() if name in OWN[action]}
    violations = Violations()
    kept = completed(violations, "rule", rule("a", action, filter=FILMS, **fields, **times))
    missing = NEEDED.get(action)
    if missing is not None and missing not in fields:
        assert [violation.field for violation in violations.found] == [f"rule.{missing}"]
        return
    assert not violations
    for name, value in fields.items():
        assert getattr(kept, name) == value
    assert completed(violations, "rule", kept) == kept
    assert not violations
    told = to_domain(kept)
    assert told.action == RuleAction[action]
    assert (told.active_from, told.active_until) == (
        5.0 if "active_from" in times else float("-inf"),
        9.0 if "active_until" in times else float("inf"),
    )
    if action == "FREQUENCY_CAP":
        assert told.period_s == (60.0 if "period" in fields else 86_400.0)


def test_the_example_of_the_document_is_right() -> None:
    text = (Path(__file__).parents[2] / "docs/rules.md").read_text(encoding="utf-8")
    example = text[text.index("echo '[") + len("echo '") : text.index("]' | zhiyin rules put -") + 1]
    violations = Violations()
    for entry in json.loads(example):
        completed(violations, "rule", json_format.ParseDict(entry, pb.Rule()))
    assert not violations.found
