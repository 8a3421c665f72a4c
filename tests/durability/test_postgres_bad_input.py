"""Bad input on PostgreSQL: what it refuses and SQLite takes (NUL, texts in another order) makes no difference."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from benchmarks.stack import Stack, running_stack
from service_runtime.errors import InvalidRequest
from tests.contracts.test_fuzz import hammer
from tests.postgres_cluster import Cluster
from tests.ranking_service.user_side_harness import event, opened
from tests.retrieval_service.retrieval_harness import item, running_retrieval
from zhiyin.common.v1 import filter_pb2
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb

NUL = "a\0b"
# In the order of their UTF-8 bytes, which is nobody's locale.
IDS = ["A-1", "B", "Z", "_", "a", "a b", "a-1", "b-2", "z", "ä", "é", "中", "中文", "文", "𝄞"]


async def test_ids_page_in_the_order_of_their_bytes(store_url: str, tmp_path: Path) -> None:
    async with running_retrieval(tmp_path, store_url=store_url) as retrieval:
        await retrieval.upsert(*(item(i, f"film {i}", categories=["all"]) for i in reversed(IDS)))
        everything = filter_pb2.Filter()
        everything.field_in.field = "categories"
        everything.field_in.values.add(string_value="all")
        for condition in (None, everything):  # from the store, and from the directory in memory
            found, token = [], ""
            while True:
                request = pb.ListItemsRequest(catalog="default", page_size=2, page_token=token, filter=condition)
                page = await retrieval.stub.ListItems(request, timeout=20)
                found += [listed.id for listed in page.items]
                if not (token := page.next_page_token):
                    break
            assert found == IDS == sorted(IDS, key=str.encode)
    async with running_retrieval(tmp_path, store_url=store_url) as retrieval:
        assert (await retrieval.stats()).item_count == len(IDS)


async def test_a_nul_is_refused_by_name_in_every_text_of_retrieval(store_url: str, tmp_path: Path) -> None:
    async with running_retrieval(tmp_path, store_url=store_url) as retrieval:
        stub = retrieval.stub
        await retrieval.upsert(item("a"))
        calls = {
            "items[0].title": (stub.UpsertItems, pb.UpsertItemsRequest(items=[item("b", NUL)])),
            "items[0].text": (stub.UpsertItems, pb.UpsertItemsRequest(items=[item("b", "t", text=NUL)])),
            "items[0].id": (stub.UpsertItems, pb.UpsertItemsRequest(items=[item(NUL, "t")])),
            "items[0].language": (stub.UpsertItems, pb.UpsertItemsRequest(items=[item("b", "t", language=NUL)])),
            "items[0].categories[0]": (stub.UpsertItems, pb.UpsertItemsRequest(items=[item("b", categories=[NUL])])),
            "items[0].attributes[x]": (
                stub.UpsertItems,
                pb.UpsertItemsRequest(items=[item("b", attributes={"x": NUL})]),
            ),
            "request_id": (stub.UpsertItems, pb.UpsertItemsRequest(items=[item("b")], request_id=NUL)),
            "item_ids[0]": (stub.GetItems, pb.GetItemsRequest(item_ids=[NUL])),
        }
        for field, (call, request) in calls.items():
            request.catalog = "default"
            with pytest.raises(grpc.aio.AioRpcError, match="invalid request") as refusal:
                await call(request, timeout=20)
            assert refusal.value.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert field in (refusal.value.details() or "")
        with pytest.raises(grpc.aio.AioRpcError, match="display_name"):
            await stub.CreateCatalog(
                pb.CreateCatalogRequest(catalog=pb.Catalog(name="c", display_name=NUL)), timeout=20
            )
        assert (await retrieval.stats()).item_count == 1


async def test_a_nul_is_refused_by_name_in_every_text_of_ranking(store_url: str, tmp_path: Path) -> None:
    context = ranking.RecommendContext(device=NUL)
    async with opened(tmp_path, store_url=store_url) as side:
        for field, bad in {
            "event_id": event("ann", "LIKE", "a", event_id=NUL),
            "user_id": event(NUL, "LIKE", "a"),
            "item_id": event("ann", "LIKE", NUL),
            "session_id": event("ann", "LIKE", "a", session_id=NUL),
            "text": event("ann", "SEARCH", text=NUL),
            "context.device": event("ann", "LIKE", "a", context=context),
            "attribution_token": event("ann", "LIKE", "a", attribution_token=NUL),
        }.items():
            with pytest.raises(InvalidRequest, match=rf"events\[0\]\.{field}"):
                await side.record(bad)
        for field, user in {
            "id": ranking.User(id=NUL),
            "profile": ranking.User(id="ann", profile=NUL),
            r"follows\[0\]": ranking.User(id="ann", follows=[NUL]),
        }.items():
            with pytest.raises(InvalidRequest, match=rf"users\[0\]\.{field}"):
                await side.upsert(user)
        assert side.side.statistics.event_sequence("default") == 0


async def test_numbers_at_the_end_of_their_range_are_kept(store_url: str, tmp_path: Path) -> None:
    year_1, year_9999, exact = -62_135_596_800, 253_402_300_799, 0.1 + 0.2
    async with opened(tmp_path, store_url=store_url) as side:
        far = event("ann", "LIKE", "a")
        far.time.seconds = year_1
        precise = event("ann", "PURCHASE", "b", 1.7e9, value=exact)
        precise.context.time.seconds = year_9999
        await side.record(far, precise)
        told = [one for part in await side.export("ann") for one in part.events.events]
        assert [one.time.seconds for one in told] == [year_1, 1_700_000_000]
        assert told[1].value == exact
        assert told[1].context.time.seconds == year_9999


@pytest.fixture(scope="module")
def stack_on_postgresql(
    minilm_model_dir: Path, postgres_cluster: Cluster, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Stack]:
    with (
        postgres_cluster.store() as items,
        postgres_cluster.store() as users,
        pytest.MonkeyPatch.context() as environment,
    ):
        environment.setenv("ZHIYIN_RETRIEVAL_STORE_URL", items)
        environment.setenv("ZHIYIN_RANKING_STORE_URL", users)
        with running_stack(tmp_path_factory.mktemp("fuzz-postgresql"), str(minilm_model_dir)) as stack:
            yield stack


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(5))
def test_random_requests_never_meet_the_database_unchecked(stack_on_postgresql: Stack, seed: int) -> None:
    hammer(stack_on_postgresql, 120, seed)
