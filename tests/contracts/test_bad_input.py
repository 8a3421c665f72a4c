"""Bad requests, one a line: the code, every field that is named, and nothing changed afterwards.

What nobody thought of is found by the fuzz (test_fuzz.py); this is the table of what people do send.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from benchmarks.stack import Stack
from zhiyin.common.v1.embedding_pb2 import VECTOR_DTYPE_FLOAT32, Embedding, EmbeddingMatrix
from zhiyin.common.v1.filter_pb2 import FieldIn, Filter, FilterList, NumberRange
from zhiyin.common.v1.item_pb2 import AttributeValue, Item
from zhiyin.encoder.v1 import encoder_service_pb2 as encoder
from zhiyin.encoder.v1.encoder_service_pb2_grpc import EncoderServiceStub
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceStub

HOME, OTHER = "bad-input", "bad-input-other"
INVALID, NOT_FOUND = grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.NOT_FOUND
PRECONDITION, ALREADY, ABORTED = (
    grpc.StatusCode.FAILED_PRECONDITION,
    grpc.StatusCode.ALREADY_EXISTS,
    grpc.StatusCode.ABORTED,
)
NAN, INFINITY = float("nan"), float("inf")
BIG = "长" * 34_000  # 100 kB
CONTROL = "item\x00\x1b[31m"
YEAR_1, YEAR_9999 = Timestamp(seconds=-62_135_596_800), Timestamp(seconds=253_402_300_799)
BEYOND = Timestamp(seconds=253_402_300_800)
DIMENSIONS = 384


def vector(*values: float) -> Embedding:
    return Embedding(data=struct.pack(f"<{len(values)}f", *values), dtype=VECTOR_DTYPE_FLOAT32, dimensions=len(values))


def upsert(*items: Item, **fields: Any) -> Message:
    return retrieval.UpsertItemsRequest(catalog=HOME, items=items, **fields)


def search(**query: Any) -> Message:
    return retrieval.SearchRequest(catalog=HOME, queries=[retrieval.SearchQuery(**query)])


def matrix(*rows: list[float]) -> EmbeddingMatrix:
    data = b"".join(struct.pack(f"<{len(row)}f", *row) for row in rows)
    return EmbeddingMatrix(data=data, dtype=VECTOR_DTYPE_FLOAT32, rows=len(rows), dimensions=len(rows[0]))


def space(**fields: Any) -> retrieval.CreateSpaceVersionRequest:
    ours = {"space": "colours", "dimensions": 2, "space_fingerprint": "model-1", **fields}
    return retrieval.CreateSpaceVersionRequest(catalog=HOME, space_version=retrieval.SpaceVersion(**ours))


def put(version: int, item_ids: list[str], vectors: EmbeddingMatrix) -> Message:
    return retrieval.PutVectorsRequest(
        catalog=HOME, space="colours", version=version, item_ids=item_ids, vectors=vectors
    )


def event(**fields: Any) -> ranking.Event:
    return ranking.Event(**{"user_id": "ada", "item_id": "item-1", "type": ranking.EVENT_TYPE_CLICK, **fields})


def record(*events: ranking.Event) -> Message:
    return ranking.RecordEventsRequest(catalog=HOME, events=events)


def users(*all_of_them: ranking.User, **fields: Any) -> Message:
    return ranking.UpsertUsersRequest(catalog=HOME, users=all_of_them, **fields)


def words(field: str, *values: str) -> Filter:
    return Filter(field_in=FieldIn(field=field, values=[AttributeValue(string_value=value) for value in values]))


def nested(levels: int) -> Filter:
    """A condition below so many negations."""
    condition = words("id", "x")
    for _ in range(levels - 1):
        condition = Filter(negated=condition)
    return condition


def put_rule(**fields: Any) -> Message:
    return ranking.PutRuleRequest(catalog=HOME, rule=ranking.Rule(**fields))


def number(value: float) -> AttributeValue:
    return AttributeValue(number_value=value)


def rerank(**fields: Any) -> Message:
    ours = [ranking.RerankCandidate(item_id=f"item-{i}", score=1) for i in range(3)]
    return ranking.RerankRequest(**{"catalog": HOME, "candidates": ours, **fields})


def label(name: str) -> encoder.Label:
    return encoder.Label(id=name, descriptions=[name])


def classify(**fields: Any) -> Message:
    return encoder.ClassifyRequest(**{"texts": ["a"], "labels": [label("a"), label("b")], **fields})


GOOD = Item(id="item-1", title="Film 1")
EVERYTHING_WRONG = Item(
    id=CONTROL,
    title="t" * 3000,
    text=BIG,
    categories=["c" * 300],
    language="x" * 65,
    prior=2.0,
    created_at=BEYOND,
    attributes={"a": number(NAN), "b": number(INFINITY)},
)
EVENT_WITH_EVERYTHING_WRONG = event(
    event_id="e" * 129, user_id="", item_id=CONTROL, value=NAN, session_id="\x07", text="t" * 5000, time=YEAR_9999
)
# Request, code, and exactly the fields that are named; None: the refusal is about something else than a field.
REFUSED: dict[str, tuple[Message, grpc.StatusCode, set[str] | None]] = {
    # ---- retrieval: writes
    "no items": (upsert(), INVALID, {"items"}),
    "too many items": (upsert(*(Item(id=f"n{i}", title="x") for i in range(1001))), INVALID, {"items"}),
    "text of 100 kB": (upsert(Item(id="a", title="x", text=BIG)), INVALID, {"items[0].text"}),
    "item without words": (upsert(Item(id="a")), INVALID, {"items[0]"}),
    "an id twice": (upsert(GOOD, Item(id="b", title="b"), GOOD), INVALID, {"items[2].id"}),
    "id of control characters": (upsert(Item(id=CONTROL, title="x")), INVALID, {"items[0].id"}),
    "NaN attribute": (
        upsert(Item(id="a", title="x", attributes={"p": number(NAN)})),
        INVALID,
        {"items[0].attributes[p]"},
    ),
    "infinite prior": (upsert(Item(id="a", title="x", prior=INFINITY)), INVALID, {"items[0].prior"}),
    "time beyond year 9999": (upsert(Item(id="a", title="x", created_at=BEYOND)), INVALID, {"items[0].created_at"}),
    "mask of unknown fields": (
        upsert(GOOD, update_mask=FieldMask(paths=["title", "nothing", "revision"])),
        INVALID,
        {"update_mask.paths[1]", "update_mask.paths[2]"},
    ),
    "mask of what is inferred": (
        upsert(GOOD, update_mask=FieldMask(paths=["inferred", "inferred_version"])),
        INVALID,
        {"update_mask.paths[0]", "update_mask.paths[1]"},
    ),
    "everything wrong with two items": (
        upsert(EVERYTHING_WRONG, Item(), request_id="r" * 200),
        INVALID,
        {
            *(f"items[0].{name}" for name in ("id", "title", "text", "categories[0]", "language", "prior")),
            *(f"items[0].{name}" for name in ("created_at", "attributes[a]", "attributes[b]")),
            "items[1].id",
            "items[1]",
            "request_id",
        },
    ),
    "upsert into an unknown catalogue": (retrieval.UpsertItemsRequest(catalog="nobody", items=[GOOD]), NOT_FOUND, None),
    "change of an unknown item": (
        upsert(Item(id="ghost", title="x"), update_mask=FieldMask(paths=["title"])),
        NOT_FOUND,
        None,
    ),
    "stale revision": (upsert(Item(id="item-1", title="x", revision=77), check_revision=True), ABORTED, None),
    "attribute of another type": (
        upsert(Item(id="item-1", title="x", attributes={"year": AttributeValue(string_value="old")})),
        INVALID,
        {"items[0].attributes[year]"},
    ),
    "delete nothing": (retrieval.DeleteItemsRequest(catalog=HOME), INVALID, {"item_ids"}),
    "delete bad ids": (
        retrieval.DeleteItemsRequest(catalog=HOME, item_ids=["", CONTROL, "x" * 257]),
        INVALID,
        {"item_ids[0]", "item_ids[1]", "item_ids[2]"},
    ),
    # ---- retrieval: reads
    "search for nothing": (retrieval.SearchRequest(catalog=HOME), INVALID, {"queries"}),
    "NaN vector": (search(vector=vector(*[NAN] * DIMENSIONS)), INVALID, {"queries[0].vector.data"}),
    "infinite vector": (search(vector=vector(*[INFINITY] * DIMENSIONS)), INVALID, {"queries[0].vector.data"}),
    "zero vector": (search(vector=vector(*[0.0] * DIMENSIONS)), INVALID, {"queries[0].vector.data"}),
    "vector of other dimensions": (search(vector=vector(1.0, 2.0)), INVALID, {"queries[0].vector.dimensions"}),
    "vector of half a number": (
        search(vector=Embedding(data=b"123", dtype=VECTOR_DTYPE_FLOAT32, dimensions=1)),
        INVALID,
        {"queries[0].vector.data"},
    ),
    "vector of another model": (
        search(
            vector=Embedding(
                data=b"\0\0\x80\x3f" * DIMENSIONS,
                dtype=VECTOR_DTYPE_FLOAT32,
                dimensions=DIMENSIONS,
                space_fingerprint="another",
            )
        ),
        PRECONDITION,
        None,
    ),
    "unknown space": (search(text="a film", space="colours"), NOT_FOUND, None),
    "two queries of one name, too many hits": (
        retrieval.SearchRequest(
            catalog=HOME,
            queries=[retrieval.SearchQuery(name="q", text="a", limit=1001), retrieval.SearchQuery(name="q", text="")],
        ),
        INVALID,
        {"queries[0].limit", "queries[1].name", "queries[1].text"},
    ),
    "filter that fits no type": (
        retrieval.SearchRequest(
            catalog=HOME,
            queries=[retrieval.SearchQuery(text="a")],
            filter=Filter(number_range=NumberRange(field="categories", min=1)),
        ),
        INVALID,
        {"filter.number_range"},
    ),
    "empty list of a filter": (
        retrieval.ListItemsRequest(catalog=HOME, filter=Filter(field_in=FieldIn(field="categories"))),
        INVALID,
        {"filter.field_in.values"},
    ),
    "page token that is none": (retrieval.ListItemsRequest(catalog=HOME, page_token="abc"), INVALID, {"page_token"}),
    "page of a million": (retrieval.ListItemsRequest(catalog=HOME, page_size=1_000_000), INVALID, {"page_size"}),
    "name of a catalogue": (
        retrieval.CreateCatalogRequest(catalog=retrieval.Catalog(name="../etc", display_name="d" * 300)),
        INVALID,
        {"catalog.name", "catalog.display_name"},
    ),
    "drop of an unknown catalogue": (retrieval.DropCatalogRequest(catalog="nobody"), NOT_FOUND, None),
    # ---- retrieval: spaces
    "everything wrong with a space": (
        retrieval.CreateSpaceVersionRequest(
            catalog="No Name",
            space_version=retrieval.SpaceVersion(
                space="../x",
                dimensions=2**32 - 1,
                metric=99,  # type: ignore[arg-type]
                space_fingerprint="f" * 257,
            ),
            derived_from_space="colours",
            projection=EmbeddingMatrix(data=b"123", rows=2**32 - 1, dimensions=2**32 - 1),
            bias=vector(NAN),
            source_mean=vector(INFINITY),
            request_id="r" * 129,
        ),
        INVALID,
        {
            "catalog",
            *(f"space_version.{name}" for name in ("space", "dimensions", "metric", "space_fingerprint")),
            *("derived_from_space", "projection.data", "bias.data", "source_mean.data", "request_id"),
        },
    ),
    "another version of the encoder's space": (space(space="semantic"), INVALID, {"space_version.space"}),
    "a centred inner product": (
        space(metric=retrieval.METRIC_INNER_PRODUCT, centered=True),
        INVALID,
        {"space_version.centered"},
    ),
    "a derived space without a map": (
        retrieval.CreateSpaceVersionRequest(
            catalog=HOME, space_version=space().space_version, derived_from_space="semantic"
        ),
        INVALID,
        {"projection"},
    ),
    "a map from nowhere": (
        retrieval.CreateSpaceVersionRequest(
            catalog=HOME, space_version=space().space_version, projection=matrix([1.0, 2.0], [3.0, 4.0])
        ),
        INVALID,
        {"projection"},
    ),
    "a map from other dimensions": (
        retrieval.CreateSpaceVersionRequest(
            catalog=HOME,
            space_version=space().space_version,
            derived_from_space="semantic",
            projection=matrix([1.0, 2.0], [3.0, 4.0]),
        ),
        INVALID,
        {"projection.dimensions"},
    ),
    "a space of an unknown catalogue": (
        retrieval.CreateSpaceVersionRequest(catalog="nobody", space_version=space().space_version),
        NOT_FOUND,
        None,
    ),
    "vectors of nothing": (
        retrieval.PutVectorsRequest(catalog=HOME),
        INVALID,
        {"space", "version", "item_ids", "vectors.data"},
    ),
    "vectors that are no numbers, an item twice": (
        put(1, ["item-1", "item-1"], matrix([NAN, 1.0], [INFINITY, 1.0])),
        INVALID,
        {"item_ids[1]", "vectors.data"},
    ),
    "fewer vectors than items": (put(1, ["item-1", "item-2"], matrix([1.0])), INVALID, {"vectors.rows"}),
    "vectors for the encoder's space": (
        retrieval.PutVectorsRequest(
            catalog=HOME, space="semantic", version=1, item_ids=["item-1"], vectors=matrix([1.0])
        ),
        INVALID,
        {"space"},
    ),
    "vectors for an unknown version": (put(2**64 - 1, ["item-1"], matrix([1.0])), NOT_FOUND, None),
    "publish nothing": (retrieval.PublishSpaceVersionRequest(catalog=HOME), INVALID, {"space", "version"}),
    "publish what is not there": (
        retrieval.PublishSpaceVersionRequest(catalog=HOME, space="colours", version=2**63),
        NOT_FOUND,
        None,
    ),
    "retire the encoder's space": (
        retrieval.RetireSpaceVersionRequest(catalog=HOME, space="semantic", version=1),
        INVALID,
        {"space"},
    ),
    "retire what is not there": (
        retrieval.RetireSpaceVersionRequest(catalog=HOME, space="colours", version=3),
        NOT_FOUND,
        None,
    ),
    "a version of the encoder's space that is none": (search(text="a film", space_version=2), NOT_FOUND, None),
    "versions of one space that differ": (
        retrieval.SearchRequest(
            catalog=HOME,
            queries=[
                retrieval.SearchQuery(name="a", text="a"),
                retrieval.SearchQuery(name="b", text="b", space="semantic", space_version=1),
            ],
            vectors_space_version=1,
        ),
        INVALID,
        {"queries[1].space_version", "vectors_space_version"},
    ),
    # ---- ranking: users and events
    "no events": (record(), INVALID, {"events"}),
    "too many events": (record(*[event()] * 1001), INVALID, {"events"}),
    "no type": (record(event(type=ranking.EVENT_TYPE_UNSPECIFIED)), INVALID, {"events[0].type"}),
    "rating without a value": (record(event(type=ranking.EVENT_TYPE_RATING)), INVALID, {"events[0].value"}),
    "infinite rating": (record(event(type=ranking.EVENT_TYPE_RATING, value=INFINITY)), INVALID, {"events[0].value"}),
    "event of the year 9999": (record(event(time=YEAR_9999)), INVALID, {"events[0].time"}),
    "forged attribution token": (record(event(attribution_token="Zm9yZ2Vk")), INVALID, {"events[0].attribution_token"}),
    "everything wrong with an event": (
        record(EVENT_WITH_EVERYTHING_WRONG),
        INVALID,
        {f"events[0].{name}" for name in ("event_id", "user_id", "item_id", "value", "session_id", "text", "time")},
    ),
    "an event id with other content": (record(event(event_id="known", item_id="item-2")), ALREADY, None),
    "events of an unknown catalogue": (
        ranking.RecordEventsRequest(catalog="nobody", events=[event()]),
        NOT_FOUND,
        None,
    ),
    "a user twice, and one without an id": (
        users(ranking.User(id="a"), ranking.User(id="a"), ranking.User()),
        INVALID,
        {"users[1].id", "users[2].id"},
    ),
    "profile of 100 kB": (users(ranking.User(id="a", profile=BIG)), INVALID, {"users[0].profile"}),
    "user's attribute of another type": (
        users(ranking.User(id="a", attributes={"age": AttributeValue(string_value="old")})),
        INVALID,
        {"users[0].attributes[age]"},
    ),
    "stale revision of a user": (users(ranking.User(id="ada", revision=9), check_revision=True), ABORTED, None),
    "erase nobody in particular": (ranking.DeleteUserRequest(catalog=HOME), INVALID, {"user_id"}),
    # ---- ranking: rules
    "everything wrong with a rule": (
        put_rule(
            id=CONTROL,
            action=ranking.RULE_ACTION_QUOTA,
            filter=Filter(any_of=FilterList(filters=[words("nothing", "a"), words("attributes.year", "a")])),
            max_places=0,
            per_field="year",
            min_share=NAN,
            note=BIG,
            active_from=BEYOND,
        ),
        INVALID,
        # The field that there is none of is said before types are looked at.
        {
            *("rule.id", "rule.max_places", "rule.min_share", "rule.note", "rule.active_from"),
            "rule.filter.any_of.filters[0].field_in.field",
        },
    ),
    "a filter of other types than the attributes": (
        put_rule(
            id="a",
            action=ranking.RULE_ACTION_QUOTA,
            max_places=1,
            filter=Filter(negated=words("attributes.year", "a")),
            per_field="year",
        ),
        INVALID,
        {"rule.filter.negated.field_in", "rule.per_field"},
    ),
    "a filter that is too deep": (
        put_rule(id="a", action=ranking.RULE_ACTION_BLOCK, filter=nested(9)),
        INVALID,
        {"rule.filter" + ".negated" * 8},
    ),
    "a block of everything": (put_rule(id="a", action=ranking.RULE_ACTION_BLOCK), INVALID, {"rule.filter"}),
    "a rule that does nothing known": (put_rule(id="a"), INVALID, {"rule.action"}),
    "a rule of an unknown catalogue": (
        ranking.PutRuleRequest(
            catalog="nobody", rule=ranking.Rule(id="a", action=ranking.RULE_ACTION_BLOCK, filter=words("id", "x"))
        ),
        NOT_FOUND,
        None,
    ),
    "rules of nowhere": (ranking.ListRulesRequest(page_size=1001), INVALID, {"catalog", "page_size"}),
    "forged page of rules": (ranking.ListRulesRequest(catalog=HOME, page_token="Zm9"), INVALID, {"page_token"}),
    "deleting a rule without a name": (ranking.DeleteRuleRequest(catalog=HOME), INVALID, {"rule_id"}),
    # ---- ranking: lists
    "everything wrong with a list": (
        ranking.RecommendRequest(
            catalog="No Name",
            user_id=CONTROL,
            query_text="q" * 5000,
            page_size=101,
            diversity=NAN,
            exploration=-1,
            excluded_item_ids=[""],
            diversity_method=99,  # type: ignore[arg-type]
            item_mask=FieldMask(paths=["nothing"]),
        ),
        INVALID,
        {
            "catalog",
            "user_id",
            "query_text",
            "page_size",
            "diversity",
            "exploration",
            "excluded_item_ids[0]",
            "diversity_method",
            "item_mask",
        },
    ),
    "list from an unknown catalogue": (ranking.RecommendRequest(catalog="nobody", user_id="ada"), NOT_FOUND, None),
    "forged consistency token": (
        ranking.RecommendRequest(catalog=HOME, user_id="ada", consistency_token="Zm9yZ2Vk"),
        INVALID,
        {"consistency_token"},
    ),
    "why without a token": (ranking.ExplainRequest(catalog="No Name"), INVALID, {"catalog", "attribution_token"}),
    "why with a forged token": (
        ranking.ExplainRequest(catalog=HOME, attribution_token="Zm9yZ2Vk" * 9_000),
        INVALID,
        {"attribution_token"},
    ),
    "like an unknown item": (ranking.SimilarItemsRequest(catalog=HOME, item_ids=["ghost"]), NOT_FOUND, None),
    "like nothing": (ranking.SimilarItemsRequest(catalog=HOME), INVALID, {"item_ids"}),
    "candidates with bad scores": (
        rerank(
            candidates=[
                ranking.RerankCandidate(item_id="item-1", score=NAN),
                ranking.RerankCandidate(score=INFINITY),
                ranking.RerankCandidate(item_id="item-1", score=1),
            ]
        ),
        INVALID,
        {"candidates[0].score", "candidates[1].item_id", "candidates[1].score", "candidates"},
    ),
    "candidates with NaN vectors": (
        rerank(
            vectors=EmbeddingMatrix(
                data=struct.pack("<6f", *[NAN] * 6), dtype=VECTOR_DTYPE_FLOAT32, rows=3, dimensions=2
            )
        ),
        INVALID,
        {"vectors.data"},
    ),
    # ---- encoder
    "no texts": (encoder.EmbedRequest(), INVALID, {"texts"}),
    "empty and huge text": (encoder.EmbedRequest(texts=["", "x" * (2 << 20)]), INVALID, {"texts[0]", "texts[1]"}),
    "nothing to classify": (encoder.ClassifyRequest(), INVALID, {"texts", "labels"}),
    "a single label": (classify(labels=[label("a")]), INVALID, {"labels"}),
    "a label twice": (classify(labels=[label("a"), label("b"), label("a")]), INVALID, {"labels[2].id"}),
    "too many labels": (classify(labels=[label(f"l{i}") for i in range(257)]), INVALID, {"labels"}),
    "too many texts of labels": (
        classify(labels=[encoder.Label(id=f"l{i}", descriptions=["x"] * 9) for i in range(250)]),
        INVALID,
        {"labels"},
    ),
    "more scores than an answer can hold": (
        classify(texts=[f"t{i}" for i in range(200)], labels=[label(f"l{i}") for i in range(60)], max_labels=51),
        INVALID,
        {"max_labels"},
    ),
    "everything wrong with a classification": (
        classify(
            texts=["", "a"],
            labels=[
                encoder.Label(id=CONTROL, examples=[BIG]),
                encoder.Label(descriptions=["d", " "] + ["d"] * 15, examples=["e"] * 65),
            ],
            min_probability=NAN,
            max_labels=0,
        ),
        INVALID,
        {
            *("texts[0]", "labels[0].id", "labels[0].descriptions", "labels[0].examples[0]", "labels[1].id"),
            *("labels[1].descriptions", "labels[1].descriptions[1]", "labels[1].examples"),
            *("min_probability", "max_labels"),
        },
    ),
    "a probability above 1": (classify(min_probability=1.5), INVALID, {"min_probability"}),
}
STUBS: dict[str, str] = {
    "EmbedRequest": "encoder", "ClassifyRequest": "encoder",
    "UpsertItemsRequest": "retrieval", "DeleteItemsRequest": "retrieval",
    "SearchRequest": "retrieval", "ListItemsRequest": "retrieval", "CreateCatalogRequest": "retrieval",
    "DropCatalogRequest": "retrieval", "CreateSpaceVersionRequest": "retrieval", "PutVectorsRequest": "retrieval",
    "PublishSpaceVersionRequest": "retrieval", "RetireSpaceVersionRequest": "retrieval",
}  # fmt: skip


@dataclass
class Services:
    encoder: EncoderServiceStub
    retrieval: RetrievalServiceStub
    ranking: RankingServiceStub
    untouched: tuple[Any, ...] = ()
    """The state before any refused request."""

    def call(self, request: Message) -> Any:
        kind = type(request).__name__
        method = getattr(getattr(self, STUBS.get(kind, "ranking")), kind.removesuffix("Request"))
        return method(request, timeout=20)

    def state(self) -> tuple[Any, ...]:
        """Everything that a write could have changed."""
        items = self.call(retrieval.ListItemsRequest(catalog=HOME, page_size=1000)).items
        stats = self.retrieval.GetCatalogStats(retrieval.GetCatalogStatsRequest(catalog=HOME))
        export = self.ranking.ExportUser(ranking.ExportUserRequest(catalog=HOME, user_id="ada"), timeout=20)
        catalogs = self.retrieval.ListCatalogs(retrieval.ListCatalogsRequest(page_size=1000)).catalogs
        names = {catalog.name for catalog in catalogs}
        rules = self.ranking.ListRules(ranking.ListRulesRequest(catalog=HOME)).rules
        stored = [i.SerializeToString(deterministic=True) for i in items]
        return stored, stats.sequence, list(export), names, list(rules)


@pytest.fixture(scope="module")
def services(zhiyin_stack: Stack) -> Iterator[Services]:
    with (
        grpc.insecure_channel(zhiyin_stack.encoder_address) as to_encoder,
        grpc.insecure_channel(zhiyin_stack.retrieval_address) as to_retrieval,
        grpc.insecure_channel(zhiyin_stack.ranking_address) as to_ranking,
    ):
        found = Services(
            EncoderServiceStub(to_encoder), RetrievalServiceStub(to_retrieval), RankingServiceStub(to_ranking)
        )
        for name in (HOME, OTHER):
            found.call(retrieval.CreateCatalogRequest(catalog=retrieval.Catalog(name=name)))
        films = [Item(id=f"item-{i}", title=f"Film {i}", attributes={"year": number(2000 + i)}) for i in range(5)]
        found.call(upsert(*films))
        found.call(users(ranking.User(id="ada", profile="films", attributes={"age": number(36)})))
        found.call(record(event(event_id="known")))
        found.untouched = found.state()
        yield found


def refusal(call: Callable[[], Any]) -> tuple[grpc.StatusCode, list[str], error_details_pb2.ErrorInfo]:
    """Code, the fields named, and the machine's reason."""
    with pytest.raises(grpc.RpcError) as refused:
        call()
    status = rpc_status.from_call(refused.value)
    assert status is not None, f"a refusal without details: {refused.value.details()}"
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    assert status.details[0].Unpack(info)
    for detail in status.details[1:]:
        detail.Unpack(bad)
    return refused.value.code(), [violation.field for violation in bad.field_violations], info


@pytest.mark.parametrize("what", REFUSED)
def test_it_is_refused_by_name_and_changes_nothing(what: str, services: Services) -> None:
    request, expected, fields = REFUSED[what]
    code, named, info = refusal(lambda: services.call(request))
    assert code is expected
    assert set(named) == (fields or set())
    assert info.domain == "zhiyin"
    assert info.reason
    assert services.state() == services.untouched


ACCEPTED: dict[str, Message] = {
    "the years 1 and 9999 as times of items": retrieval.UpsertItemsRequest(
        catalog=OTHER,
        items=[Item(id="old", title="x", created_at=YEAR_1, available_from=YEAR_1, available_until=YEAR_9999)],
    ),
    "an item as it was read, with marks of attributes it has and of one it has not": retrieval.UpsertItemsRequest(
        catalog=OTHER,
        items=[Item(id="read", title="x", attributes={"p": number(1)}, inferred=["p", "q"], inferred_version="v")],
    ),
    "an event on an item that nobody knows": ranking.RecordEventsRequest(
        catalog=OTHER, events=[event(user_id="early", item_id="to-come")]
    ),
    "an event of the year 1, which weighs nothing by now": ranking.RecordEventsRequest(
        catalog=OTHER, events=[event(time=YEAR_1)]
    ),
    "deleting what is not there": retrieval.DeleteItemsRequest(catalog=OTHER, item_ids=["ghost"]),
    "ids in Chinese, with spaces and emoji": retrieval.UpsertItemsRequest(
        catalog=OTHER, items=[Item(id="电影 1 🎬", title="x")]
    ),
}


@pytest.mark.parametrize("what", ACCEPTED)
def test_what_is_unusual_and_right_is_taken(what: str, services: Services) -> None:
    services.call(ACCEPTED[what])


def test_a_page_token_of_another_request_is_refused(services: Services) -> None:
    token = services.call(retrieval.ListItemsRequest(catalog=HOME, page_size=1)).next_page_token
    year = Filter(number_range=NumberRange(field="attributes.year", min=1))
    for request in (
        retrieval.ListItemsRequest(catalog=OTHER, page_size=1, page_token=token),
        retrieval.ListItemsRequest(catalog=HOME, page_size=1, page_token=token, filter=year),
        ranking.RecommendRequest(catalog=HOME, user_id="ada", page_token=token),
    ):
        code, named, _ = refusal(lambda request=request: services.call(request))  # type: ignore[misc]
        assert (code, named) == (INVALID, ["page_token"])


def test_an_attribution_token_counts_only_for_what_was_shown(services: Services) -> None:
    shown = services.call(ranking.RecommendRequest(catalog=HOME, user_id="ada", page_size=2)).items
    token = shown[0].attribution_token
    other = event(item_id=shown[1].item.id, attribution_token=token)
    code, named, _ = refusal(lambda: services.call(record(other)))
    assert (code, named) == (INVALID, ["events[0].attribution_token"])
    damaged = event(item_id=shown[0].item.id, attribution_token=token[:-4] + "AAAA")
    code, named, _ = refusal(lambda: services.call(record(damaged)))
    assert (code, named) == (INVALID, ["events[0].attribution_token"])


def test_a_batch_of_a_stream_is_refused_alone(services: Services) -> None:
    batches = [
        retrieval.ImportItemsRequest(catalog=OTHER, batch_number=1, items=[Item(id="s1", title="one")]),
        retrieval.ImportItemsRequest(catalog=OTHER, batch_number=2, items=[Item(id=CONTROL), Item(id="s2", text=BIG)]),
        retrieval.ImportItemsRequest(catalog=OTHER, batch_number=3, items=[Item(id="s3", title="three")]),
    ]
    answers = list(services.retrieval.ImportItems(iter(batches), timeout=20))
    assert [answer.batch_number for answer in answers] == [1, 2, 3]
    assert [answer.HasField("written") for answer in answers] == [True, False, True]
    named = {violation.field for violation in answers[1].error.violations}
    assert {"items[0].id", "items[0]", "items[1].text"} <= named
    got = services.retrieval.GetItems(retrieval.GetItemsRequest(catalog=OTHER, item_ids=["s1", "s2", "s3"]))
    assert [item.id for item in got.items] == ["s1", "s3"]
