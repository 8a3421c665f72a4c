"""Further pages of a list over a real server: the same list, also when it has to be made anew."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from tests.ranking_service.recommend_harness import Harness, ids, running_ranking, themed_catalog
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2


async def read_all(ranking: Harness, size: int, **fields) -> list[list[str]]:
    pages, token = [], ""
    while True:
        reply = await ranking.recommend(page_size=size, page_token=token, **fields)
        assert [entry.rank for entry in reply.items] == list(
            range(1 + sum(map(len, pages)), 1 + sum(map(len, pages)) + len(reply.items))
        )
        pages.append(ids(reply))
        token = reply.next_page_token
        if not token:
            return pages


@pytest.mark.parametrize("kept", [True, False], ids=["list kept", "list made anew"])
async def test_pages_are_one_list(tmp_path: Path, kept: bool) -> None:
    settings = {} if kept else {"list_store_bytes": 0}
    async with running_ranking(tmp_path, *themed_catalog(), **settings) as ranking:
        await ranking.describe("u", "song and concert")
        await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1", "travel-4")
        whole = await read_all(ranking, 48, user="u")
        pages = await read_all(ranking, 7, user="u")
        assert [item_id for page in pages for item_id in page] == [item_id for page in whole for item_id in page]
        exploring = await read_all(ranking, 6, user="u", exploration=0.3)
        flat = [item_id for page in exploring for item_id in page]
        assert len(flat) == len(set(flat)) == 46


async def test_events_between_two_pages_do_not_shuffle_the_list_but_hide_at_once(tmp_path: Path) -> None:
    async with running_ranking(tmp_path, *themed_catalog()) as ranking:
        await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1")
        whole = ids(await ranking.recommend("u", page_size=20))
        first = await ranking.recommend("u", page_size=10)
        hidden = whole[12]
        token = await ranking.act("u", pb2.EVENT_TYPE_HIDE, hidden)
        await ranking.act("u", pb2.EVENT_TYPE_CLICK, "cooking-1")
        second = await ranking.recommend("u", page_size=9, page_token=first.next_page_token, consistency_token=token)
        assert ids(second) == [item_id for item_id in whole[10:20] if item_id != hidden][:9]


async def test_a_list_of_somebody_erased_is_not_gone_on_with(tmp_path: Path) -> None:
    async with running_ranking(tmp_path, *themed_catalog()) as ranking:
        await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1")
        first = await ranking.recommend("u", page_size=5)
        await ranking.stub.DeleteUser(pb2.DeleteUserRequest(catalog="default", user_id="u"))
        second = await ranking.recommend("u", page_size=5, page_token=first.next_page_token)
        assert len(second.items) == 5
        assert not set(ids(first)) & set(ids(second))
        assert not any(entry.reason.item_ids for entry in second.items)


async def test_somebody_new_who_acts_between_two_pages_keeps_the_list(tmp_path: Path) -> None:
    async with running_ranking(tmp_path, *themed_catalog()) as ranking:
        whole = ids(await ranking.recommend("u", page_size=20))
        first = await ranking.recommend("u", page_size=10)
        token = await ranking.act("u", pb2.EVENT_TYPE_CLICK, whole[0])
        second = await ranking.recommend("u", page_size=10, page_token=first.next_page_token, consistency_token=token)
        assert ids(second) == whole[10:]


async def test_the_catalogue_may_change_between_pages_of_a_list_made_anew(tmp_path: Path) -> None:
    async with running_ranking(tmp_path, *themed_catalog(), list_store_bytes=0) as ranking:
        first = await ranking.recommend(query_text="movie cinema", page_size=10)
        ranking.retrieval.put(*themed_catalog(per_theme=14))
        second = await ranking.recommend(query_text="movie cinema", page_size=10, page_token=first.next_page_token)
        assert len(second.items) == 10
        assert not set(ids(first)) & set(ids(second))
        assert second.items[0].rank == 11


async def test_a_list_ends(tmp_path: Path) -> None:
    async with running_ranking(tmp_path, *themed_catalog(), max_list_length=15) as ranking:
        pages = await read_all(ranking, 10, query_text="movie")
        assert [len(page) for page in pages] == [10, 5]


async def test_a_token_is_good_for_its_own_request_only(tmp_path: Path) -> None:
    async with running_ranking(tmp_path, *themed_catalog()) as ranking:
        first = await ranking.recommend(query_text="movie", page_size=5)
        for fields in (
            {"query_text": "song", "page_token": first.next_page_token},
            {"query_text": "movie", "diversity": 0.9, "page_token": first.next_page_token},
            {"query_text": "movie", "page_token": first.next_page_token[:-3] + "AAA"},
            {"query_text": "movie", "page_token": first.items[0].attribution_token},
            {"query_text": "movie", "page_token": "nonsense"},
        ):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await ranking.recommend(page_size=5, **fields)
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "page_token" in (error.value.details() or "")
