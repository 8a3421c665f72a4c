"""Random and mutated requests of every type, against the running services: refused by name or answered, never INTERNAL.

What was refused has changed nothing. Services are their own, since a fuzzed DropCatalog drops what it names.
"""

from __future__ import annotations

import contextlib
import random
import struct
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import message_factory
from google.protobuf.descriptor import MethodDescriptor
from google.protobuf.message import Message
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from benchmarks.stack import Stack, running_stack
from tests.contracts.random_messages import RandomMessages
from tests.contracts.test_every_rpc_answers import METHODS
from zhiyin.common.v1.embedding_pb2 import EmbeddingMatrix
from zhiyin.common.v1.filter_pb2 import FieldIn, Filter
from zhiyin.common.v1.item_pb2 import AttributeValue, Item
from zhiyin.encoder.v1 import encoder_service_pb2 as encoder
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as ranking_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc

SHORT, LONG = 120, 1000
CATALOG = "fuzz"
ITEMS = [Item(id=f"item-{i}", title=f"Film {i}", text="A film.", categories=["film"]) for i in range(20)]
FILM = Filter(field_in=FieldIn(field="categories", values=[AttributeValue(string_value="film")]))
EVENT = ranking.Event(user_id="user-1", item_id="item-1", type=ranking.EVENT_TYPE_LIKE, event_id="event-1")
# Valid requests that mutation starts from; other types are filled from nothing.
VALID: dict[str, Message] = {
    "EmbedRequest": encoder.EmbedRequest(texts=["a", "b"]),
    "EmbedStreamRequest": encoder.EmbedStreamRequest(texts=["a"]),
    "UpsertItemsRequest": retrieval.UpsertItemsRequest(catalog=CATALOG, items=ITEMS[:2]),
    "ImportItemsRequest": retrieval.ImportItemsRequest(catalog=CATALOG, items=ITEMS[:2]),
    "SearchRequest": retrieval.SearchRequest(
        catalog=CATALOG,
        queries=[
            retrieval.SearchQuery(name="text", text="a film", limit=5),
            retrieval.SearchQuery(
                name="like", examples=retrieval.Examples(items=[retrieval.WeightedItem(item_id="item-1", weight=1)])
            ),
        ],
        hydrate_item_ids=["item-2"],
        vectors_space="semantic",
        labels=[retrieval.NamedFilter(name="film", filter=FILM, add=2), retrieval.NamedFilter(name="all")],
    ),
    "CreateSpaceVersionRequest": retrieval.CreateSpaceVersionRequest(
        catalog=CATALOG,
        space_version=retrieval.SpaceVersion(space="fuzz", dimensions=2, space_fingerprint="model"),
        derived_from_space="semantic",
        projection=EmbeddingMatrix(data=struct.pack("<768f", *[0.1] * 768), rows=2, dimensions=384),
    ),
    # The version of these three is set when it is made.
    "PutVectorsRequest": retrieval.PutVectorsRequest(
        catalog=CATALOG,
        space="fuzz",
        item_ids=["item-1", "item-2"],
        vectors=EmbeddingMatrix(data=struct.pack("<4f", 1, 2, 3, 4), rows=2, dimensions=2),
    ),
    "PublishSpaceVersionRequest": retrieval.PublishSpaceVersionRequest(catalog=CATALOG, space="fuzz"),
    "RetireSpaceVersionRequest": retrieval.RetireSpaceVersionRequest(catalog=CATALOG, space="fuzz"),
    "ListItemsRequest": retrieval.ListItemsRequest(catalog=CATALOG, page_size=5),
    "GetItemsRequest": retrieval.GetItemsRequest(catalog=CATALOG, item_ids=["item-1"]),
    "RecommendRequest": ranking.RecommendRequest(catalog=CATALOG, user_id="user-1", page_size=5),
    "SimilarItemsRequest": ranking.SimilarItemsRequest(catalog=CATALOG, item_ids=["item-1"]),
    "ExplainRequest": ranking.ExplainRequest(catalog=CATALOG, attribution_token="AAAA"),
    "RerankRequest": ranking.RerankRequest(
        catalog=CATALOG, candidates=[ranking.RerankCandidate(item_id=f"item-{i}", score=i) for i in range(4)]
    ),
    "RecordEventsRequest": ranking.RecordEventsRequest(catalog=CATALOG, events=[EVENT]),
    "StreamEventsRequest": ranking.StreamEventsRequest(catalog=CATALOG, events=[EVENT]),
    "UpsertUsersRequest": ranking.UpsertUsersRequest(
        catalog=CATALOG, users=[ranking.User(id="user-1", profile="film", follows=["user-2"])]
    ),
    "PutRuleRequest": ranking.PutRuleRequest(
        catalog=CATALOG, rule=ranking.Rule(id="rule-1", action=ranking.RULE_ACTION_PIN, filter=FILM, position=2)
    ),
    "DeleteRuleRequest": ranking.DeleteRuleRequest(catalog=CATALOG, rule_id="rule-1"),
    "ListRulesRequest": ranking.ListRulesRequest(catalog=CATALOG, page_size=2),
}
# Twenty seconds are enough for any of these requests: whoever needs more hangs.
BUGS = {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DATA_LOSS, grpc.StatusCode.DEADLINE_EXCEEDED}
# These write; a refusal of theirs must leave no trace.
WRITES = {
    *("UpsertItems", "DeleteItems", "RecordEvents", "UpsertUsers", "DeleteUser", "PutRule", "DeleteRule"),
    *("CreateCatalog", "UpdateCatalog", "DropCatalog"),
    *("CreateSpaceVersion", "PutVectors", "PublishSpaceVersion", "RetireSpaceVersion"),
}


@pytest.fixture(scope="module")
def fuzzed(minilm_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with running_stack(tmp_path_factory.mktemp("fuzz"), str(minilm_model_dir)) as stack:
        yield stack


def test_random_requests_are_answered_or_refused_by_name(fuzzed: Stack) -> None:
    hammer(fuzzed, SHORT, seed=1)


@pytest.mark.long
def test_many_more_random_requests(fuzzed: Stack) -> None:
    hammer(fuzzed, LONG, seed=random.SystemRandom().randrange(2**32))


def hammer(stack: Stack, calls: int, seed: int) -> None:
    """`calls` requests to every RPC: half of them mutations of a valid one, half filled from nothing."""
    make, draw = RandomMessages(seed), random.Random(seed)
    outcomes: Counter[str] = Counter()
    faults: list[str] = []
    order = [each for each in METHODS for _ in range(calls)]
    draw.shuffle(order)
    with Caller(stack) as caller:
        for kind, method in order:
            if draw.random() < 0.02:
                caller.restore()
            request = message_factory.GetMessageClass(method.input_type)()
            template = VALID.get(method.input_type.name)
            request = make.fill(request) if template is None or draw.random() < 0.4 else make.mutate(template)
            before = caller.state() if method.name in WRITES and draw.random() < 0.2 else None
            code = caller.call(kind, method, request)
            assert code not in BUGS, f"seed {seed}: {method.name} answered {code} to {str(request)[:2000]}"
            if before is not None and code is not grpc.StatusCode.OK:
                assert caller.state() == before, (
                    f"seed {seed}: refused {method.name} left a trace: {str(request)[:2000]}"
                )
            outcomes[f"{method.name} {code.name}"] += 1
        assert not faults, f"seed {seed}, {len(faults)} faults:\n" + "\n".join(faults[:20])
        caller.restore()
        assert caller.healthy()
    # The fuzz must reach behind the validation, or it proves nothing.
    for name in ("Recommend", "Search", "UpsertItems", "RecordEvents", "Rerank", "Embed", "PutRule"):
        assert outcomes[f"{name} OK"], outcomes
        assert outcomes[f"{name} INVALID_ARGUMENT"], outcomes
    for name in ("CreateSpaceVersion", "PutVectors"):
        assert outcomes[f"{name} INVALID_ARGUMENT"], outcomes
    # Whether a mutation of these still names a version that is there is luck; what they start from must be valid.
    with Caller(stack) as caller:
        caller.start_anew()
        for kind, method in METHODS:
            if method.name in ("CreateSpaceVersion", "PutVectors", "PublishSpaceVersion"):
                assert caller.call(kind, method, VALID[method.input_type.name]) is grpc.StatusCode.OK, method.name


class Caller:
    """Calls any method by its descriptor and looks at the state that writes change."""

    def __init__(self, stack: Stack) -> None:
        options = [("grpc.enable_retries", 0), ("grpc.max_receive_message_length", 16 << 20)]
        self._channels = {
            kind: grpc.insecure_channel(getattr(stack, f"{kind}_address"), options=options)
            for kind in ("encoder", "retrieval", "ranking")
        }
        self._retrieval = retrieval_grpc.RetrievalServiceStub(self._channels["retrieval"])
        self._ranking = ranking_grpc.RankingServiceStub(self._channels["ranking"])

    def __enter__(self) -> Caller:
        self.restore()
        return self

    def __exit__(self, *_: object) -> None:
        for channel in self._channels.values():
            channel.close()

    def restore(self) -> None:
        """Makes the catalogue and its items, however the fuzz left them, and takes its rules away."""
        self._retrieval.CreateCatalog(retrieval.CreateCatalogRequest(catalog=self._catalog()), timeout=20)
        unlimited = retrieval.UpdateCatalogRequest(catalog=self._catalog())
        unlimited.catalog.max_items = 0
        self._retrieval.UpdateCatalog(unlimited, timeout=20)
        self._retrieval.UpsertItems(retrieval.UpsertItemsRequest(catalog=CATALOG, items=ITEMS), timeout=20)
        for rule in self._rules():
            self._ranking.DeleteRule(ranking.DeleteRuleRequest(catalog=CATALOG, rule_id=rule.id), timeout=20)
        versions = [version.version for version in self._spaces(CATALOG) if version.space == "fuzz"]
        if not versions:
            with contextlib.suppress(grpc.RpcError):  # there are as many of other names as there may be
                made = self._retrieval.CreateSpaceVersion(VALID["CreateSpaceVersionRequest"], timeout=20)
                versions.append(made.space_version.version)
        for name in ("PutVectorsRequest", "PublishSpaceVersionRequest", "RetireSpaceVersionRequest"):
            VALID[name].version = versions[-1] if versions else 1  # type: ignore[attr-defined]

    def start_anew(self) -> None:
        """An empty catalogue with the items again: nothing is left of what was fuzzed into it."""
        self._retrieval.DropCatalog(retrieval.DropCatalogRequest(catalog=CATALOG), timeout=20)
        self.restore()

    def _spaces(self, catalog: str) -> Sequence[retrieval.SpaceVersion]:
        request = retrieval.ListSpaceVersionsRequest(catalog=catalog, page_size=1000)
        return self._retrieval.ListSpaceVersions(request, timeout=20).space_versions

    def _rules(self) -> Sequence[ranking.Rule]:
        request = ranking.ListRulesRequest(catalog=CATALOG, page_size=1000)
        return self._ranking.ListRules(request, timeout=20).rules

    def _catalog(self) -> retrieval.Catalog:
        try:
            found: retrieval.Catalog = self._retrieval.GetCatalog(retrieval.GetCatalogRequest(catalog=CATALOG)).catalog
            return retrieval.Catalog(name=CATALOG, display_name=found.display_name, max_items=found.max_items)
        except grpc.RpcError:
            return retrieval.Catalog(name=CATALOG)

    def call(self, kind: str, method: MethodDescriptor, request: Message) -> grpc.StatusCode:
        """The status of a call; a stream's refused batch counts as its code."""
        answer = message_factory.GetMessageClass(method.output_type)
        shape = f"{'stream' if method.client_streaming else 'unary'}_{'stream' if method.server_streaming else 'unary'}"
        invoke = getattr(self._channels[kind], shape)(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        try:
            result = invoke(iter([request]) if method.client_streaming else request, timeout=20)
            answers: list[Any] = list(result) if method.server_streaming else [result]
        except grpc.RpcError as error:
            if error.code() not in BUGS:
                _check_details(error)
            return error.code()
        refused = [
            one.error.code for one in answers if "error" in one.DESCRIPTOR.fields_by_name and one.HasField("error")
        ]
        by_number = {code.value[0]: code for code in grpc.StatusCode}
        return by_number[refused[0]] if refused else grpc.StatusCode.OK

    def state(self) -> tuple[object, ...]:
        """What writes would change: sequences, the items, the user, the rules."""
        catalogs = self._retrieval.ListCatalogs(retrieval.ListCatalogsRequest(), timeout=20)
        names = tuple((c.name, c.display_name, c.max_items) for c in catalogs.catalogs)
        sequences = []
        for name, *_ in names:
            figures = self._retrieval.GetCatalogStats(retrieval.GetCatalogStatsRequest(catalog=name), timeout=20)
            spaces = tuple(version.SerializeToString(deterministic=True) for version in self._spaces(name))
            sequences.append((figures.item_count, figures.sequence, spaces))
        try:
            request = ranking.GetUserRequest(catalog=CATALOG, user_id="user-1")
            user = self._ranking.GetUser(request, timeout=20).SerializeToString(deterministic=True)
        except grpc.RpcError as error:
            user = error.code()
        rules = tuple(rule.SerializeToString(deterministic=True) for rule in self._rules())
        return (names, tuple(sequences), user, rules)

    def healthy(self) -> bool:
        """Whether a plain recommendation still works."""
        request = ranking.RecommendRequest(catalog=CATALOG, user_id="nobody-fuzzed", page_size=3)
        return len(self._ranking.Recommend(request, timeout=20).items) == 3


def _check_details(error: grpc.RpcError) -> None:
    """Every refusal of ours carries its reason; an INVALID_ARGUMENT names the fields."""
    status = rpc_status.from_call(error)
    assert status is not None, f"{error.code()} without details: {error.details()}"
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert any(detail.Unpack(info) for detail in status.details)
    if error.code() is grpc.StatusCode.INVALID_ARGUMENT:
        assert any(detail.Unpack(bad) for detail in status.details)
        assert bad.field_violations
