"""Whom a user follows, over a real server."""

from __future__ import annotations

from pathlib import Path

from tests.ranking_service.recommend_harness import Harness, ids, running_ranking, themed_catalog, themes
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2


async def follow(ranking: Harness, user: str, *followed: str) -> None:
    users = [pb2.User(id=user, follows=followed)]
    await ranking.stub.UpsertUsers(pb2.UpsertUsersRequest(catalog="default", users=users))


async def test_somebody_who_has_done_nothing_gets_what_the_followed_like(tmp_path: Path) -> None:
    async with running_ranking(tmp_path, *themed_catalog()) as ranking:
        await ranking.act("friend", pb2.EVENT_TYPE_LIKE, "travel-3", "travel-5")
        for other in range(4):
            await ranking.act(f"other-{other}", pb2.EVENT_TYPE_LIKE, "music-1")
        await follow(ranking, "u", "friend", "nobody-knows", "u")
        reply = await ranking.recommend("u", diversity=0)
        assert {"travel-3", "travel-5"} <= set(ids(reply)[:3])
        by_id = {entry.item.id: entry.reason for entry in reply.items}
        assert by_id["travel-3"].source == pb2.SOURCE_KIND_COMMUNITY
        assert by_id["travel-3"].text == "Liked by people like you"
        assert "friend" not in str(reply)  # what somebody likes is theirs to tell
        assert not reply.degraded


async def test_a_like_of_this_second_counts_and_an_erased_one_does_not(tmp_path: Path) -> None:
    async with running_ranking(tmp_path, *themed_catalog()) as ranking:
        await follow(ranking, "u", "friend")
        await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1")
        await ranking.recommend("u")
        await ranking.act("friend", pb2.EVENT_TYPE_LIKE, "cooking-7")
        reply = await ranking.recommend("u", page_size=20)
        assert "cooking-7" in ids(reply)
        assert themes(reply).count("film") > themes(reply).count("cooking")  # the user's own likes say more
        await ranking.stub.DeleteUser(pb2.DeleteUserRequest(catalog="default", user_id="friend"))
        again = await ranking.recommend("u", page_size=20)
        reasons = {entry.reason.source for entry in again.items}
        assert pb2.SOURCE_KIND_COMMUNITY not in reasons


async def test_what_the_followed_dislike_is_no_proposal(tmp_path: Path) -> None:
    async with running_ranking(tmp_path, *themed_catalog()) as ranking:
        await ranking.act("friend", pb2.EVENT_TYPE_DISLIKE, "travel-3")
        await follow(ranking, "u", "friend")
        reply = await ranking.recommend("u", page_size=40)
        assert pb2.SOURCE_KIND_COMMUNITY not in {entry.reason.source for entry in reply.items}
