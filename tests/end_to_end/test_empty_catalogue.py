"""Users and their events may come before the first item."""

from __future__ import annotations

import grpc

from benchmarks.stack import Stack
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval_pb
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceStub

CATALOG = "not-filled-yet"


def test_lists_are_empty_until_there_are_items(zhiyin_stack: Stack) -> None:
    with (
        grpc.insecure_channel(zhiyin_stack.retrieval_address) as to_retrieval,
        grpc.insecure_channel(zhiyin_stack.ranking_address) as to_ranking,
    ):
        retrieval, ranking = RetrievalServiceStub(to_retrieval), RankingServiceStub(to_ranking)
        retrieval.CreateCatalog(
            retrieval_pb.CreateCatalogRequest(catalog=retrieval_pb.Catalog(name=CATALOG)), timeout=10
        )
        ranking.UpsertUsers(
            pb.UpsertUsersRequest(catalog=CATALOG, users=[pb.User(id="early", profile="jazz and cooking")]), timeout=10
        )
        liked = pb.Event(user_id="early", type=pb.EVENT_TYPE_LIKE, item_id="to-come")
        token = ranking.RecordEvents(
            pb.RecordEventsRequest(catalog=CATALOG, events=[liked]), timeout=10
        ).consistency_token
        request = pb.RecommendRequest(catalog=CATALOG, user_id="early", query_text="jazz", consistency_token=token)
        empty = ranking.Recommend(request, timeout=10)
        assert not empty.items
        assert not empty.degraded
        items = [Item(id="to-come", title="Cooking with jazz"), Item(id="other", title="Jazz standards")]
        retrieval.UpsertItems(retrieval_pb.UpsertItemsRequest(catalog=CATALOG, items=items), timeout=30)
        assert [entry.item.id for entry in ranking.Recommend(request, timeout=10).items] == ["other"]
