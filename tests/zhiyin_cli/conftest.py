"""A small server that keeps the contract's promises about batches, for the commands to talk to over a real socket."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import grpc
import pytest
from google.protobuf import any_pb2
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from zhiyin.common.v1 import error_pb2
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb2
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as ranking_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc


class RecordingServices(retrieval_grpc.RetrievalServiceServicer, ranking_grpc.RankingServiceServicer):
    """Keeps items, events and users; refuses items titled `bad`; can be told to fail."""

    def __init__(self) -> None:
        self.items: dict[str, str] = {}
        self.events: dict[str, ranking_pb2.Event] = {}
        self.users: dict[str, ranking_pb2.User] = {}
        self.rules: dict[str, ranking_pb2.Rule] = {}
        self.sent_item_ids: list[str] = []
        self.refuse_after_items: int | None = None
        self.break_stream_after_batches: int | None = None
        self.overloads_left = 0
        self.last_recommend: ranking_pb2.RecommendRequest | None = None
        self.last_explain: ranking_pb2.ExplainRequest | None = None
        self.recommend_status: status_pb2.Status | None = None
        self.reason = "matches your profile"
        self.max_message_bytes = 65536
        self.largest_message = 0

    def refuse_recommend(self, code: int, message: str, *details: Any) -> None:
        """Makes Recommend fail with a google.rpc.Status."""
        self.recommend_status = _status(code, message, *details)

    def GetLimits(self, request: Any, context: grpc.ServicerContext) -> Any:
        if isinstance(request, retrieval_pb2.GetLimitsRequest):
            return retrieval_pb2.GetLimitsResponse(max_items_per_batch=10, max_message_bytes=self.max_message_bytes)
        return ranking_pb2.GetLimitsResponse(
            max_events_per_batch=10, max_users_per_batch=10, max_message_bytes=self.max_message_bytes
        )

    def ImportItems(self, requests: Any, context: grpc.ServicerContext) -> Iterator[retrieval_pb2.ImportItemsResponse]:
        for request in requests:
            self.largest_message = max(self.largest_message, request.ByteSize())
            if self.break_stream_after_batches is not None:
                self.break_stream_after_batches -= 1
                if self.break_stream_after_batches < 0:
                    self.break_stream_after_batches = None
                    context.abort(grpc.StatusCode.UNAVAILABLE, "restarting")
            error = self._item_error(request)
            if error is not None:
                yield retrieval_pb2.ImportItemsResponse(batch_number=request.batch_number, error=error)
                continue
            self.sent_item_ids += [item.id for item in request.items]
            self.items |= {item.id: item.title for item in request.items}
            yield retrieval_pb2.ImportItemsResponse(
                batch_number=request.batch_number, written=retrieval_pb2.UpsertItemsResponse(sequence=len(self.items))
            )

    def _item_error(self, request: retrieval_pb2.ImportItemsRequest) -> error_pb2.BatchError | None:
        if self.overloads_left:
            self.overloads_left -= 1
            error = error_pb2.BatchError(code=8, reason="OVERLOADED", message="the write queue is full")
            error.retry_after.FromMilliseconds(10)
            return error
        if self.refuse_after_items is not None and len(self.items) >= self.refuse_after_items:
            return error_pb2.BatchError(code=9, reason="SPACE_MISMATCH", message="the encoder serves another model")
        bad = [index for index, item in enumerate(request.items) if item.title == "bad"]
        if bad:
            violations = [
                error_pb2.FieldViolation(field=f"items[{index}].title", description="is bad") for index in bad
            ]
            return error_pb2.BatchError(code=3, reason="INVALID_REQUEST", message="1 field", violations=violations)
        return None

    def StreamEvents(self, requests: Any, context: grpc.ServicerContext) -> Iterator[ranking_pb2.StreamEventsResponse]:
        for request in requests:
            known = sum(event.event_id in self.events for event in request.events)
            self.events |= {event.event_id: event for event in request.events}
            recorded = ranking_pb2.RecordEventsResponse(
                recorded_count=len(request.events) - known, duplicate_count=known
            )
            yield ranking_pb2.StreamEventsResponse(batch_number=request.batch_number, recorded=recorded)

    def UpsertUsers(self, request: ranking_pb2.UpsertUsersRequest, context: grpc.ServicerContext) -> Any:
        bad = [index for index, user in enumerate(request.users) if user.profile == "bad"]
        if bad:
            fields = [
                error_details_pb2.BadRequest.FieldViolation(field=f"users[{index}].profile", description="is bad")
                for index in bad
            ]
            context.abort_with_status(
                rpc_status.to_status(_status(3, "1 field", error_details_pb2.BadRequest(field_violations=fields)))
            )
        self.users |= {user.id: user for user in request.users}
        return ranking_pb2.UpsertUsersResponse()

    def PutRule(self, request: ranking_pb2.PutRuleRequest, context: grpc.ServicerContext) -> Any:
        if request.rule.note == "bad":
            fields = [error_details_pb2.BadRequest.FieldViolation(field="rule.note", description="is bad")]
            context.abort_with_status(
                rpc_status.to_status(_status(3, "1 field", error_details_pb2.BadRequest(field_violations=fields)))
            )
        if not request.validate_only:
            self.rules[request.rule.id] = request.rule
        return ranking_pb2.PutRuleResponse(rule=request.rule)

    def ListRules(self, request: ranking_pb2.ListRulesRequest, context: grpc.ServicerContext) -> Any:
        """Pages of two."""
        ids = sorted(rule_id for rule_id in self.rules if rule_id > request.page_token)
        token = ids[1] if len(ids) > 2 else ""
        return ranking_pb2.ListRulesResponse(rules=[self.rules[i] for i in ids[:2]], next_page_token=token)

    def DeleteRule(self, request: ranking_pb2.DeleteRuleRequest, context: grpc.ServicerContext) -> Any:
        return ranking_pb2.DeleteRuleResponse(existed=self.rules.pop(request.rule_id, None) is not None)

    def Explain(self, request: ranking_pb2.ExplainRequest, context: grpc.ServicerContext) -> Any:
        self.last_explain = request
        response = ranking_pb2.ExplainResponse(
            rank_before_diversity=1,
            propensity=1.0,
            features={"profile.contribution": 0.5, "history.evidence": 0.9, "nudge.prior": 0.1},
            rules=[ranking_pb2.AppliedRule(rule_id="spring", action=ranking_pb2.RULE_ACTION_BOOST, score=0.5)],
            dropped=[ranking_pb2.DroppedCandidate(item_id="film-9", filter="hidden", similarity=0.8)],
            degraded=[ranking_pb2.Degradation(component="explain:dropped", reason="UNAVAILABLE", message="down")],
            reproduction=ranking_pb2.Reproduction(item_ids=["film-2", "film-1"], moved_on=["events"]),
        )
        entry = response.list.add(rank=2, score=1.25)
        entry.item.id, entry.item.title, entry.reason.text = "film-1", "《长津湖》", "因为你看过"
        entry.sources.add(source=ranking_pb2.SOURCE_KIND_PROFILE, rank=1, score=0.7)
        response.item.CopyFrom(entry)
        return response

    def Recommend(self, request: ranking_pb2.RecommendRequest, context: grpc.ServicerContext) -> Any:
        self.last_recommend = request
        if self.recommend_status is not None:
            context.abort_with_status(rpc_status.to_status(self.recommend_status))
        response = ranking_pb2.RecommendResponse()
        entry = response.items.add(rank=1, score=1.25)
        entry.item.id = "video-changjinhu"
        entry.item.title = "最新上映的电影《长津湖》"
        entry.item.categories.extend(["video", "film"])
        entry.sources.add(source=ranking_pb2.SOURCE_KIND_PROFILE, rank=1)
        entry.reason.text = self.reason
        response.degraded.add(component="source:query", reason="UNAVAILABLE", message="the encoder is down")
        return response


def _status(code: int, message: str, *details: Any) -> status_pb2.Status:
    """A google.rpc.Status with packed details."""
    result = status_pb2.Status(code=code, message=message)
    for detail in details:
        packed = any_pb2.Any()
        packed.Pack(detail)
        result.details.append(packed)
    return result


@pytest.fixture
def services() -> RecordingServices:
    return RecordingServices()


@pytest.fixture
def address(services: RecordingServices) -> Iterator[str]:
    """Where the recording server answers for retrieval and ranking alike."""
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    retrieval_grpc.add_RetrievalServiceServicer_to_server(services, server)
    ranking_grpc.add_RankingServiceServicer_to_server(services, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield f"127.0.0.1:{port}"
    server.stop(grace=None).wait()
