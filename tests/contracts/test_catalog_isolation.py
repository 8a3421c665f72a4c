"""Two catalogues in one deployment see nothing of each other: id, filter, list, statistic, recommendation, error."""

from __future__ import annotations

from typing import Any

import grpc
import pytest

from benchmarks.stack import Stack
from zhiyin.common.v1.filter_pb2 import FieldExists, Filter
from zhiyin.common.v1.item_pb2 import AttributeValue, Item
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as ranking_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc

OURS, THEIRS = "tenant-ours", "tenant-theirs"
SECRET = "their-secret"


class Tenants:
    """Ours has ten films; theirs has films under the same ids, a secret one, a loud user and many events."""

    def __init__(self, stack: Stack) -> None:
        self._channels = [grpc.insecure_channel(a) for a in (stack.retrieval_address, stack.ranking_address)]
        self.retrieval = retrieval_grpc.RetrievalServiceStub(self._channels[0])
        self.ranking = ranking_grpc.RankingServiceStub(self._channels[1])
        for catalog in (OURS, THEIRS):
            self.retrieval.CreateCatalog(retrieval.CreateCatalogRequest(catalog=retrieval.Catalog(name=catalog)))
        common = [Item(id=f"film-{i}", title=f"Film {i}", categories=["film"]) for i in range(10)]
        self.retrieval.UpsertItems(retrieval.UpsertItemsRequest(catalog=OURS, items=common), timeout=30)
        loud = [Item(id=f"film-{i}", title=f"Theirs {i}", attributes={"margin": number(i)}) for i in range(10)]
        loud.append(Item(id=SECRET, title="Their secret film", attributes={"margin": number(99)}))
        self.retrieval.UpsertItems(retrieval.UpsertItemsRequest(catalog=THEIRS, items=loud), timeout=30)
        user = ranking.User(id="ada", profile="their ada loves secrets")
        self.ranking.UpsertUsers(ranking.UpsertUsersRequest(catalog=THEIRS, users=[user]))
        liked = [
            ranking.Event(user_id=f"fan-{i}", item_id=item, type=ranking.EVENT_TYPE_LIKE, event_id=f"e-{i}-{item}")
            for i in range(20)
            for item in (SECRET, "film-9")
        ]
        request = ranking.RecordEventsRequest(catalog=THEIRS, events=liked)
        self.their_token = self.ranking.RecordEvents(request, timeout=10).consistency_token

    def close(self) -> None:
        for channel in self._channels:
            channel.close()


def number(value: float) -> AttributeValue:
    return AttributeValue(number_value=value)


@pytest.fixture(scope="module")
def tenants(zhiyin_stack: Stack) -> Any:
    tenants = Tenants(zhiyin_stack)
    yield tenants
    tenants.close()


def code(call: Any) -> grpc.StatusCode:
    with pytest.raises(grpc.RpcError) as refused:
        call()
    found: grpc.StatusCode = refused.value.code()
    return found


def test_items_lists_filters_and_searches(tenants: Tenants) -> None:
    got = tenants.retrieval.GetItems(retrieval.GetItemsRequest(catalog=OURS, item_ids=["film-1", SECRET]))
    assert [item.title for item in got.items] == ["Film 1"]
    assert list(got.missing_item_ids) == [SECRET]
    listed = tenants.retrieval.ListItems(retrieval.ListItemsRequest(catalog=OURS, page_size=100))
    assert {item.title for item in listed.items} == {f"Film {i}" for i in range(10)}
    margin = Filter(field_exists=FieldExists(field="attributes.margin"))
    filtered = tenants.retrieval.ListItems(retrieval.ListItemsRequest(catalog=OURS, filter=margin))
    assert not filtered.items
    search = retrieval.SearchRequest(
        catalog=OURS,
        queries=[retrieval.SearchQuery(text="their secret film", limit=50)],
        hydrate_item_ids=[SECRET],
    )
    found = tenants.retrieval.Search(search, timeout=10)
    assert SECRET not in {item.id for item in found.items}
    assert list(found.missing_item_ids) == [SECRET]


def test_attributes_have_types_of_their_own(tenants: Tenants) -> None:
    """`margin` is a number with them; with us it may be a word."""
    item = Item(
        id="film-0", title="Film 0", categories=["film"], attributes={"margin": AttributeValue(string_value="x")}
    )
    tenants.retrieval.UpsertItems(
        retrieval.UpsertItemsRequest(catalog=OURS, items=[item], validate_only=True), timeout=10
    )


def test_figures(tenants: Tenants) -> None:
    ours = tenants.retrieval.GetCatalogStats(retrieval.GetCatalogStatsRequest(catalog=OURS))
    assert ours.item_count == ours.indexed_count == 10


def test_users_events_and_statistics(tenants: Tenants) -> None:
    assert code(lambda: tenants.ranking.GetUser(ranking.GetUserRequest(catalog=OURS, user_id="ada"))) is (
        grpc.StatusCode.NOT_FOUND
    )
    exported = tenants.ranking.ExportUser(ranking.ExportUserRequest(catalog=OURS, user_id="fan-1"))
    assert code(lambda: list(exported)) is grpc.StatusCode.NOT_FOUND
    # The same event id with other content is a conflict within a catalogue, not across.
    event = ranking.Event(user_id="bob", item_id="film-1", type=ranking.EVENT_TYPE_CLICK, event_id=f"e-1-{SECRET}")
    recorded = tenants.ranking.RecordEvents(ranking.RecordEventsRequest(catalog=OURS, events=[event]))
    assert recorded.recorded_count == 1
    answer = tenants.ranking.Recommend(ranking.RecommendRequest(catalog=OURS, user_id="fan-1", page_size=20))
    assert len(answer.items) == 10
    assert all(entry.item.title.startswith("Film") for entry in answer.items)
    popular = ranking.SOURCE_KIND_POPULAR
    assert not [e.item.id for e in answer.items if popular in {s.source for s in e.sources} and e.item.id != "film-1"]
    # Erasing our fan-1, who does not exist, leaves theirs alone.
    tenants.ranking.DeleteUser(ranking.DeleteUserRequest(catalog=OURS, user_id="fan-1"))
    theirs = tenants.ranking.GetUser(ranking.GetUserRequest(catalog=THEIRS, user_id="fan-1"))
    assert theirs.user.event_count == 2


def test_rules_are_of_their_catalogue(tenants: Tenants) -> None:
    everything = Filter(field_exists=FieldExists(field="id"))
    block = ranking.Rule(id="rule", action=ranking.RULE_ACTION_BLOCK, filter=everything)
    kept = tenants.ranking.PutRule(ranking.PutRuleRequest(catalog=THEIRS, rule=block), timeout=10)
    try:
        assert not tenants.ranking.ListRules(ranking.ListRulesRequest(catalog=OURS)).rules
        assert not tenants.ranking.DeleteRule(ranking.DeleteRuleRequest(catalog=OURS, rule_id="rule")).existed
        ours = tenants.ranking.Recommend(ranking.RecommendRequest(catalog=OURS, user_id="x", page_size=20))
        assert len(ours.items) == 10
        request = ranking.RecommendRequest(catalog=THEIRS, user_id="x", consistency_token=kept.consistency_token)
        assert not tenants.ranking.Recommend(request).items
        crossing = ranking.RecommendRequest(catalog=OURS, consistency_token=kept.consistency_token)
        assert code(lambda: tenants.ranking.Recommend(crossing)) is grpc.StatusCode.INVALID_ARGUMENT
        page = ranking.ListRulesRequest(catalog=OURS, page_token=kept.consistency_token)
        assert code(lambda: tenants.ranking.ListRules(page)) is grpc.StatusCode.INVALID_ARGUMENT
    finally:
        tenants.ranking.DeleteRule(ranking.DeleteRuleRequest(catalog=THEIRS, rule_id="rule"))


def test_tokens_do_not_cross(tenants: Tenants) -> None:
    page = tenants.retrieval.ListItems(retrieval.ListItemsRequest(catalog=THEIRS, page_size=2)).next_page_token
    invalid = grpc.StatusCode.INVALID_ARGUMENT
    listing = retrieval.ListItemsRequest(catalog=OURS, page_size=2, page_token=page)
    assert code(lambda: tenants.retrieval.ListItems(listing)) is invalid
    listed = tenants.ranking.Recommend(ranking.RecommendRequest(catalog=THEIRS, user_id="fan-1", page_size=2))
    crossing = ranking.RecommendRequest(catalog=OURS, user_id="fan-1", page_size=2, page_token=listed.next_page_token)
    assert code(lambda: tenants.ranking.Recommend(crossing)) is invalid
    token = ranking.RecommendRequest(catalog=OURS, user_id="fan-1", consistency_token=tenants.their_token)
    assert code(lambda: tenants.ranking.Recommend(token)) is invalid
    shown = listed.items[0]
    event = ranking.Event(
        user_id="fan-1", item_id=shown.item.id, type=ranking.EVENT_TYPE_CLICK, attribution_token=shown.attribution_token
    )
    recording = ranking.RecordEventsRequest(catalog=OURS, events=[event])
    assert code(lambda: tenants.ranking.RecordEvents(recording)) is invalid
    asking = ranking.ExplainRequest(catalog=OURS, attribution_token=shown.attribution_token)
    assert code(lambda: tenants.ranking.Explain(asking)) is invalid
    asking.catalog = THEIRS
    assert tenants.ranking.Explain(asking, timeout=10).item == shown


def test_similar_and_rerank_know_only_their_own(tenants: Tenants) -> None:
    similar = ranking.SimilarItemsRequest(catalog=OURS, item_ids=[SECRET])
    assert code(lambda: tenants.ranking.SimilarItems(similar)) is grpc.StatusCode.NOT_FOUND
    alike = tenants.ranking.SimilarItems(ranking.SimilarItemsRequest(catalog=OURS, item_ids=["film-1"], page_size=50))
    assert {entry.item.id for entry in alike.items} <= {f"film-{i}" for i in range(10)}


def test_dropping_one_leaves_the_other(tenants: Tenants) -> None:
    gone = retrieval.Catalog(name="tenant-gone")
    tenants.retrieval.CreateCatalog(retrieval.CreateCatalogRequest(catalog=gone))
    items = [Item(id="film-1", title="Gone")]
    tenants.retrieval.UpsertItems(retrieval.UpsertItemsRequest(catalog=gone.name, items=items), timeout=10)
    tenants.retrieval.DropCatalog(retrieval.DropCatalogRequest(catalog=gone.name))
    assert code(lambda: tenants.retrieval.GetCatalog(retrieval.GetCatalogRequest(catalog=gone.name))) is (
        grpc.StatusCode.NOT_FOUND
    )
    assert tenants.retrieval.GetCatalogStats(retrieval.GetCatalogStatsRequest(catalog=OURS)).item_count == 10
