"""Rules over the three services as they run: each is put, and the very next list shows it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest

from zhiyin.common.v1.filter_pb2 import FieldIn, Filter, NumberRange
from zhiyin.common.v1.item_pb2 import AttributeValue, Item
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as ranking_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc

CATALOG = "house-rules"
SUBJECTS = ("sailing", "cooking", "astronomy", "gardening", "chess", "painting")
PROVIDERS = ("north", "south", "east")
TWIN = "Sailing around the world alone"


@dataclass
class House:
    """A catalogue with rules."""

    stub: ranking_grpc.RankingServiceStub
    token: str = ""

    def put(self, rule_id: str, action: str, **fields: Any) -> None:
        rule = ranking.Rule(id=rule_id, action=ranking.RuleAction.Value(f"RULE_ACTION_{action}"), **fields)
        self.token = self.stub.PutRule(ranking.PutRuleRequest(catalog=CATALOG, rule=rule), timeout=10).consistency_token

    def act(self, user: str, kind: int, *item_ids: str) -> None:
        events = [ranking.Event(user_id=user, type=kind, item_id=item_id) for item_id in item_ids]  # type: ignore[arg-type]
        written = self.stub.RecordEvents(ranking.RecordEventsRequest(catalog=CATALOG, events=events), timeout=10)
        self.token = written.consistency_token

    def list(self, user: str = "ann", size: int = 20, **fields: Any) -> ranking.RecommendResponse:
        request = ranking.RecommendRequest(
            catalog=CATALOG, user_id=user, page_size=size, consistency_token=self.token, **fields
        )
        reply = self.stub.Recommend(request, timeout=10)
        assert not reply.degraded, reply.degraded
        return reply

    def subjects(self, **fields: Any) -> list[str]:
        return [item_id.split("-")[0] for item_id in ids(self.list(**fields))]


def ids(reply: Any) -> list[str]:
    return [entry.item.id for entry in reply.items]


def where(field: str, *values: str) -> Filter:
    return Filter(field_in=FieldIn(field=field, values=[AttributeValue(string_value=value) for value in values]))


@pytest.fixture
def house(zhiyin_stack: Any) -> Iterator[House]:
    with (
        grpc.insecure_channel(zhiyin_stack.retrieval_address) as to_retrieval,
        grpc.insecure_channel(zhiyin_stack.ranking_address) as to_ranking,
    ):
        catalogue = retrieval_grpc.RetrievalServiceStub(to_retrieval)
        stub = ranking_grpc.RankingServiceStub(to_ranking)
        catalogue.CreateCatalog(retrieval.CreateCatalogRequest(catalog=retrieval.Catalog(name=CATALOG)))
        items = [
            Item(
                id=f"{subject}-{n}",
                title=f"{subject.title()} number {n}",
                text=f"All about {subject}, part {n}.",
                categories=[subject],
                attributes={
                    "provider": AttributeValue(string_value=PROVIDERS[n % 3]),
                    "price": AttributeValue(number_value=float(n)),
                },
            )
            for subject in SUBJECTS
            for n in range(12)
        ]
        items += [Item(id=f"twin-{n}", title=TWIN, categories=["sailing"]) for n in range(4)]
        catalogue.UpsertItems(retrieval.UpsertItemsRequest(catalog=CATALOG, items=items), timeout=60)
        made = House(stub)
        made.act("ann", ranking.EVENT_TYPE_LIKE, "sailing-1", "cooking-2")
        yield made
        listed = stub.ListRules(ranking.ListRulesRequest(catalog=CATALOG), timeout=10)
        for rule in listed.rules:
            stub.DeleteRule(ranking.DeleteRuleRequest(catalog=CATALOG, rule_id=rule.id), timeout=10)
        catalogue.DropCatalog(retrieval.DropCatalogRequest(catalog=CATALOG), timeout=10)


def test_each_rule_shows_in_the_next_list(house: House) -> None:
    assert "chess" not in house.subjects(size=3)
    house.put("chess week", "BOOST", filter=where("categories", "chess"), strength=10)
    assert house.subjects(size=3) == ["chess"] * 3
    house.put("chess week", "BURY", filter=where("categories", "chess"), strength=10)
    assert "chess" not in house.subjects(size=20)

    house.put("too dear", "BLOCK", filter=Filter(number_range=NumberRange(field="attributes.price", min=9)))
    prices = [int(item_id.split("-")[1]) for item_id in ids(house.list(size=70))]
    assert max(prices) == 8

    house.put("the choice", "PIN", filter=where("categories", "astronomy"), position=2)
    pinned = house.list(size=5).items[1]
    assert pinned.item.id.startswith("astronomy")
    assert pinned.reason.source == ranking.SOURCE_KIND_RULE
    house.act("ann", ranking.EVENT_TYPE_HIDE, pinned.item.id)
    following = house.list(size=5).items[1].item.id
    assert following.startswith("astronomy")
    assert following != pinned.item.id

    house.put("fair", "EXPOSURE_FLOOR", filter=where("attributes.provider", "east"), min_share=0.4)
    house.put("one voice", "QUOTA", per_field="categories", max_places=3, window=6)
    listed = ids(house.list(size=20))
    east = [item_id.split("-")[1] in ("2", "5", "8") and not item_id.startswith("twin") for item_id in listed]
    assert all(sum(east[:n]) >= math.floor(0.4 * n + 1e-9) or sum(east) == sum(east[:n]) for n in range(21))

    house.put("once", "COLLAPSE", similarity=0.99)
    assert sum(item_id.startswith("twin") for item_id in ids(house.list(query_text=TWIN, size=70))) == 1

    top = ids(house.list(size=1))[0]
    house.put("not again", "FREQUENCY_CAP", filter=where("categories", *SUBJECTS), max_impressions=2)
    house.act("ann", ranking.EVENT_TYPE_IMPRESSION, top, top)
    assert top not in ids(house.list(size=70))
    assert top in ids(house.list("bob", size=70))


def test_pages_under_rules_are_one_list(house: House) -> None:
    house.put("a", "PIN", filter=where("categories", "astronomy"), position=9)
    house.put("b", "QUOTA", per_field="provider", max_places=2, window=5)
    house.put("c", "EXPOSURE_FLOOR", filter=where("categories", "painting"), min_share=0.2)
    house.put("d", "COLLAPSE")
    whole = ids(house.list(size=40))
    found: list[str] = []
    token = ""
    while len(found) < 40:
        page = house.list(size=8, page_token=token)
        found += ids(page)
        token = page.next_page_token
    assert found == whole
    assert whole[8].startswith("astronomy")


def test_a_shelf_keeps_to_the_rules(house: House) -> None:
    house.put("no sailing", "BLOCK", filter=where("categories", "sailing"))
    house.put("the choice", "PIN", filter=where("id", "chess-4"), position=1)
    request = ranking.SimilarItemsRequest(catalog=CATALOG, item_ids=["sailing-1"], page_size=10)
    shelf = ids(house.stub.SimilarItems(request, timeout=10))
    assert shelf[0] == "chess-4"
    assert len(shelf) == 10
    assert not any(item_id.startswith(("sailing", "twin")) for item_id in shelf)
