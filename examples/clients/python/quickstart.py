"""The whole path from Python: items, an event, a list that reflects it, and an error read properly.

Run against `zhiyin up`:  python examples/clients/python/quickstart.py
"""

from __future__ import annotations

import os

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from zhiyin.common.v1 import item_pb2
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb2
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as ranking_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc

CATALOG = "python-quickstart"
DEADLINE_S = 10.0

ITEMS = [
    item_pb2.Item(id="arrival", title="Arrival", text="A linguist talks to visitors from space.", categories=["film"]),
    item_pb2.Item(id="interstellar", title="Interstellar", text="A flight through a wormhole.", categories=["film"]),
    item_pb2.Item(id="bread", title="The Science of Bread", text="Six loaves, explained.", categories=["book"]),
    item_pb2.Item(id="yunnan", title="Yunnan by Train", text="Kunming, Dali, Lijiang.", categories=["travel"]),
]


def main() -> None:
    retrieval_address = os.environ.get("ZHIYIN_RETRIEVAL_ADDRESS", "127.0.0.1:50052")
    ranking_address = os.environ.get("ZHIYIN_RANKING_ADDRESS", "127.0.0.1:50053")
    with grpc.insecure_channel(retrieval_address) as to_retrieval, grpc.insecure_channel(ranking_address) as to_ranking:
        retrieval = retrieval_grpc.RetrievalServiceStub(to_retrieval)
        ranking = ranking_grpc.RankingServiceStub(to_ranking)
        retrieval.CreateCatalog(
            retrieval_pb2.CreateCatalogRequest(catalog=retrieval_pb2.Catalog(name=CATALOG)), timeout=DEADLINE_S
        )
        try:
            walk_the_path(retrieval, ranking)
        finally:
            retrieval.DropCatalog(retrieval_pb2.DropCatalogRequest(catalog=CATALOG), timeout=DEADLINE_S)


def walk_the_path(retrieval: retrieval_grpc.RetrievalServiceStub, ranking: ranking_grpc.RankingServiceStub) -> None:
    written = retrieval.UpsertItems(retrieval_pb2.UpsertItemsRequest(catalog=CATALOG, items=ITEMS), timeout=DEADLINE_S)
    print(f"upserted {len(written.results)} items")

    event = ranking_pb2.Event(user_id="python-user", type=ranking_pb2.EVENT_TYPE_FINISH, item_id="interstellar")
    recorded = ranking.RecordEvents(
        ranking_pb2.RecordEventsRequest(catalog=CATALOG, events=[event]), timeout=DEADLINE_S
    )
    print(f"recorded {recorded.recorded_count} event")

    # The token makes the list reflect the event, whichever replica answers.
    response = ranking.Recommend(
        ranking_pb2.RecommendRequest(
            catalog=CATALOG, user_id="python-user", page_size=3, consistency_token=recorded.consistency_token
        ),
        timeout=DEADLINE_S,
    )
    for entry in response.items:
        print(f"  {entry.rank}. {entry.item.title} ({entry.score:.2f}) {entry.reason.text}")

    try:
        ranking.Recommend(ranking_pb2.RecommendRequest(catalog="", page_size=1000), timeout=DEADLINE_S)
    except grpc.RpcError as error:
        print(f"refused: {error.code().name}")
        for field, description in violations(error):
            print(f"  {field}: {description}")

    ranking.DeleteUser(ranking_pb2.DeleteUserRequest(catalog=CATALOG, user_id="python-user"), timeout=DEADLINE_S)


def violations(error: grpc.RpcError) -> list[tuple[str, str]]:
    """Every violation of a refused request, from the google.rpc.BadRequest among the details."""
    found: list[tuple[str, str]] = []
    status = rpc_status.from_call(error)
    for detail in status.details if status else ():
        bad_request = error_details_pb2.BadRequest()
        if detail.Unpack(bad_request):
            found += [(violation.field, violation.description) for violation in bad_request.field_violations]
    return found


if __name__ == "__main__":
    main()
