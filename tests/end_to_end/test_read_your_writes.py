"""An event followed at once by Recommend with its token shows the effect, every time."""

from __future__ import annotations

import random
from typing import Any

import grpc
import pytest

from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as ranking_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc

CATALOG = "read-your-writes"
SUBJECTS = [
    "sailing",
    "cooking",
    "astronomy",
    "gardening",
    "chess",
    "painting",
    "railways",
    "cycling",
    "pottery",
    "tea",
]


@pytest.mark.parametrize("times", [250, pytest.param(1000, marks=pytest.mark.long)])
def test_each_event_shows_in_the_next_list(zhiyin_stack: Any, times: int) -> None:
    with (
        grpc.insecure_channel(zhiyin_stack.retrieval_address) as to_retrieval,
        grpc.insecure_channel(zhiyin_stack.ranking_address) as to_ranking,
    ):
        catalogue = retrieval_grpc.RetrievalServiceStub(to_retrieval)
        recommender = ranking_grpc.RankingServiceStub(to_ranking)
        catalogue.CreateCatalog(retrieval.CreateCatalogRequest(catalog=retrieval.Catalog(name=CATALOG)))
        items = [
            Item(id=f"{subject}-{i}", title=f"{subject.title()} number {i}", text=f"All about {subject}, part {i}.")
            for subject in SUBJECTS
            for i in range(12)
        ]
        catalogue.UpsertItems(retrieval.UpsertItemsRequest(catalog=CATALOG, items=items), timeout=60)
        draw = random.Random(3)
        for n in range(times):
            user, event_id = f"user-{times}-{n % 50}", f"event-{times}-{n}"
            before = recommend(recommender, user, "")
            shown = before.items[draw.randrange(len(before.items))].item.id
            # Hiding has an effect that no ranking may blur: the item must be gone.
            event = ranking.Event(user_id=user, type=ranking.EVENT_TYPE_HIDE, item_id=shown, event_id=event_id)
            written = recommender.RecordEvents(ranking.RecordEventsRequest(catalog=CATALOG, events=[event]), timeout=10)
            after = recommend(recommender, user, written.consistency_token)
            assert shown not in {entry.item.id for entry in after.items}, f"event {n} did not show"
            assert not after.degraded, after.degraded


def recommend(stub: ranking_grpc.RankingServiceStub, user: str, token: str) -> ranking.RecommendResponse:
    request = ranking.RecommendRequest(catalog=CATALOG, user_id=user, consistency_token=token, page_size=10)
    return stub.Recommend(request, timeout=10)


def test_a_like_moves_the_list_towards_what_was_liked(zhiyin_stack: Any) -> None:
    with grpc.insecure_channel(zhiyin_stack.ranking_address) as channel:
        stub = ranking_grpc.RankingServiceStub(channel)
        for n, subject in enumerate(SUBJECTS):
            user = f"fan-{n}"
            event = ranking.Event(user_id=user, type=ranking.EVENT_TYPE_LIKE, item_id=f"{subject}-0")
            written = stub.RecordEvents(ranking.RecordEventsRequest(catalog=CATALOG, events=[event]), timeout=10)
            after = recommend(stub, user, written.consistency_token)
            assert after.items[0].item.id.startswith(subject), [entry.item.id for entry in after.items]
