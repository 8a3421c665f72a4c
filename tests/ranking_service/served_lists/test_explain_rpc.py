"""Explain over a real ranking server: what was served comes back, with what stood behind it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import pytest

from tests.ranking_service.recommend_harness import Harness, ids, item, running_ranking, themed_catalog
from zhiyin.common.v1.filter_pb2 import FieldIn, Filter
from zhiyin.common.v1.item_pb2 import AttributeValue
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2


@contextlib.asynccontextmanager
async def ranking_of(tmp_path: Path, **settings) -> AsyncIterator[Harness]:
    async with running_ranking(tmp_path, *themed_catalog(), **settings) as ranking:
        yield ranking


async def explain(ranking: Harness, entry: pb2.RecommendedItem, **fields) -> pb2.ExplainResponse:
    request = pb2.ExplainRequest(catalog="default", attribution_token=entry.attribution_token, **fields)
    return await ranking.stub.Explain(request, timeout=10)


async def is_gone(ranking: Harness, entry: pb2.RecommendedItem) -> str:
    with pytest.raises(grpc.aio.AioRpcError) as error:
        await explain(ranking, entry)
    assert error.value.code() is grpc.StatusCode.NOT_FOUND
    return error.value.details() or ""


def by_ids(*item_ids: str) -> Filter:
    return Filter(field_in=FieldIn(field="id", values=[AttributeValue(string_value=each) for each in item_ids]))


async def fan_of_films(ranking: Harness) -> None:
    await ranking.describe("u", "movie cinema director")
    await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-0", "film-1")
    await ranking.act("u", pb2.EVENT_TYPE_HIDE, "film-2")


async def test_every_place_of_every_page_comes_back_as_it_was_served(tmp_path: Path) -> None:
    async with ranking_of(tmp_path) as ranking:
        await fan_of_films(ranking)
        first = await ranking.recommend("u", page_size=5, experiment_variant="b")
        second = await ranking.recommend("u", page_size=5, experiment_variant="b", page_token=first.next_page_token)
        served = [*first.items, *second.items]
        for entry in served:
            told = await explain(ranking, entry)
            assert told.item == entry
            assert list(told.list) == served
            assert told.versions == first.versions
            assert told.experiment_variant == "b"
            assert told.propensity == 1
            added = sum(v for k, v in told.features.items() if k.endswith(".contribution") or k.startswith("nudge."))
            assert added == pytest.approx(entry.score, abs=1e-4)
        before = [(await explain(ranking, entry)).rank_before_diversity for entry in served]
        assert min(before) == 1
        assert len(set(before)) == len(before)


async def test_reasons_are_told_where_the_request_did_not_ask_for_them_in_its_language(tmp_path: Path) -> None:
    async with ranking_of(tmp_path) as ranking:
        await fan_of_films(ranking)
        context = pb2.RecommendContext(locale="zh-CN")
        reply = await ranking.recommend("u", explain=False, context=context)
        assert not reply.items[0].reason.text
        told = await explain(ranking, reply.items[0])
        assert any("\u4e00" <= character <= "\u9fff" for character in told.item.reason.text)
        assert told.item.sources
        assert told.item.score == reply.items[0].score


async def test_neighbours_that_a_filter_or_a_rule_dropped_are_named(tmp_path: Path) -> None:
    async with ranking_of(tmp_path) as ranking:
        await fan_of_films(ranking)
        rule = pb2.Rule(id="no-film-3", action=pb2.RULE_ACTION_BLOCK, filter=by_ids("film-3"))
        token = (await ranking.stub.PutRule(pb2.PutRuleRequest(catalog="default", rule=rule))).consistency_token
        boost = pb2.Rule(id="more-film-5", action=pb2.RULE_ACTION_BOOST, filter=by_ids("film-5"), strength=5)
        token = (await ranking.stub.PutRule(pb2.PutRuleRequest(catalog="default", rule=boost))).consistency_token
        reply = await ranking.recommend(
            "u", query_text="movie cinema", excluded_item_ids=["film-4"], consistency_token=token
        )
        entry = next(entry for entry in reply.items if entry.item.id == "film-5")
        # What is hidden after the list did not shape it.
        await ranking.act("u", pb2.EVENT_TYPE_HIDE, "film-11")
        told = await explain(ranking, entry)
        dropped = {one.item_id: one.filter for one in told.dropped}
        expected = {
            "film-0": "seen",
            "film-1": "seen",
            "film-2": "hidden",
            "film-3": "rule:no-film-3",
            "film-4": "excluded",
        }
        assert dropped == expected
        similarities = [one.similarity for one in told.dropped]
        assert similarities == sorted(similarities, reverse=True)
        assert [(rule.rule_id, rule.action) for rule in told.rules] == [("more-film-5", pb2.RULE_ACTION_BOOST)]
        assert told.rules[0].score > 0
        assert not told.degraded


async def test_pins_floors_and_collapsed_neighbours_are_named(tmp_path: Path) -> None:
    twins = [item(f"twin-{n}", "movie cinema director actor twin", "Films") for n in range(3)]
    async with running_ranking(tmp_path, *themed_catalog(), *twins) as ranking:
        await ranking.describe("u", "movie cinema twin")
        music = by_ids(*(f"music-{n}" for n in range(12)))
        token = ""
        for rule in (
            pb2.Rule(id="pin", action=pb2.RULE_ACTION_PIN, filter=by_ids("travel-3"), position=2),
            pb2.Rule(id="floor", action=pb2.RULE_ACTION_EXPOSURE_FLOOR, filter=music, min_share=0.3),
            pb2.Rule(id="collapse", action=pb2.RULE_ACTION_COLLAPSE, similarity=0.999),
        ):
            answer = await ranking.stub.PutRule(pb2.PutRuleRequest(catalog="default", rule=rule))
            token = answer.consistency_token
        reply = await ranking.recommend("u", consistency_token=token)
        told = {entry.item.id: await explain(ranking, entry) for entry in reply.items}
        assert [rule.rule_id for rule in told["travel-3"].rules] == ["pin"]
        assert told["travel-3"].rank_before_diversity == 0
        assert any(
            [rule.rule_id for rule in told[item_id].rules] == ["floor"] for item_id in told if "music" in item_id
        )
        shown = next(item_id for item_id in told if "twin" in item_id)
        collapsed = {one.item_id for one in told[shown].dropped if one.filter == "collapsed"}
        assert collapsed == {twin.id for twin in twins} - {shown}


async def test_a_quota_is_named_by_what_it_held_back_and_by_what_came_first_for_it(tmp_path: Path) -> None:
    async with ranking_of(tmp_path) as ranking:
        await fan_of_films(ranking)
        without = ids(await ranking.recommend("u", diversity=0.0, page_size=6))
        assert all("film" in item_id for item_id in without[:4])
        rule = pb2.Rule(id="few-films", action=pb2.RULE_ACTION_QUOTA, per_field="categories", max_places=2, window=4)
        answer = await ranking.stub.PutRule(pb2.PutRuleRequest(catalog="default", rule=rule))
        first = await ranking.recommend("u", diversity=0.0, page_size=4, consistency_token=answer.consistency_token)
        second = await ranking.recommend("u", diversity=0.0, page_size=4, page_token=first.next_page_token)
        entries = [*first.items, *second.items]
        named = {entry.item.id: [rule.rule_id for rule in (await explain(ranking, entry)).rules] for entry in entries}
        assert ids(first)[:2] == without[:2]
        assert [named[item_id] for item_id in without[:2]] == [[], []]
        assert without[2] in named  # on the second page
        assert without[2] not in ids(first)
        assert named[without[2]] == ["few-films"]
        assert all(named[item_id] == ["few-films"] for item_id in ids(first)[2:])


async def test_exploration_tells_its_propensity(tmp_path: Path) -> None:
    async with ranking_of(tmp_path) as ranking:
        await fan_of_films(ranking)
        reply = await ranking.recommend("u", exploration=0.5)
        explored = [e for e in reply.items if e.reason.source == pb2.SOURCE_KIND_EXPLORATION]
        assert explored
        for entry in explored:
            assert 0 < (await explain(ranking, entry)).propensity < 1


async def test_a_list_is_reproduced_also_after_a_restart_and_says_what_moved_on(tmp_path: Path) -> None:
    async with ranking_of(tmp_path) as ranking:
        await fan_of_films(ranking)
        await ranking.act("v", pb2.EVENT_TYPE_LIKE, "film-1", "film-7", "music-1")
        first = await ranking.recommend("u", page_size=4, exploration=0.3)
        second = await ranking.recommend("u", page_size=4, exploration=0.3, page_token=first.next_page_token)
        for reply in (first, second):
            made = (await explain(ranking, reply.items[1], reproduce=True)).reproduction
            assert made.identical, (ids(reply), list(made.item_ids))
            assert not made.moved_on
        assert not (await explain(ranking, first.items[0])).HasField("reproduction")
    async with ranking_of(tmp_path) as ranking:
        for reply in (first, second):
            told = await explain(ranking, reply.items[1], reproduce=True)
            assert list(told.list) == [*first.items, *second.items]
            assert told.reproduction.identical
            assert told.reproduction.versions == reply.versions
        await ranking.act("u", pb2.EVENT_TYPE_HIDE, first.items[0].item.id)
        made = (await explain(ranking, first.items[0], reproduce=True)).reproduction
        assert list(made.moved_on) == ["events"]
        assert not made.identical
        assert first.items[0].item.id not in made.item_ids


async def test_somebody_described_is_never_on_disk(tmp_path: Path) -> None:
    async with ranking_of(tmp_path) as ranking:
        somebody = pb2.AnonymousProfile(text="movie SECRETWORDS", recent_item_ids=["film-3"])
        described = await ranking.recommend(anonymous=somebody)
        nobody = await ranking.recommend(query_text="song SECRETWORDS")
        shelf = await ranking.stub.SimilarItems(pb2.SimilarItemsRequest(catalog="default", item_ids=["film-1"]))
        for reply in (described, nobody, shelf):
            told = await explain(ranking, reply.items[1], reproduce=True)
            assert told.item == reply.items[1]
            assert list(told.list) == list(reply.items)
            assert told.HasField("reproduction") == (reply is not shelf)
        assert not (tmp_path / "served_lists").exists()
    async with ranking_of(tmp_path) as ranking:
        assert "memory" in await is_gone(ranking, described.items[0])


async def test_a_token_must_be_ours_and_of_the_catalogue(tmp_path: Path) -> None:
    async with ranking_of(tmp_path) as ranking:
        reply = await ranking.recommend("u")
        token = reply.items[0].attribution_token
        for catalog, wrong in (("default", token[:-4] + "AAAA"), ("empty", token), ("default", "")):
            with pytest.raises(grpc.aio.AioRpcError) as error:
                await ranking.stub.Explain(pb2.ExplainRequest(catalog=catalog, attribution_token=wrong))
            assert error.value.code() is grpc.StatusCode.INVALID_ARGUMENT
            assert "attribution_token" in (error.value.details() or "")


async def test_without_retrieval_the_record_is_told(tmp_path: Path) -> None:
    async with ranking_of(tmp_path) as ranking:
        await fan_of_films(ranking)
        reply = await ranking.recommend("u")
        ranking.retrieval.down = True
        told = await explain(ranking, reply.items[0])
        assert told.item == reply.items[0]
        assert [part.component for part in told.degraded] == ["explain:dropped"]


async def test_an_erased_user_leaves_nothing(tmp_path: Path) -> None:
    async with ranking_of(tmp_path) as ranking:
        await ranking.act("victim-4711", pb2.EVENT_TYPE_LIKE, "film-0", "film-1")
        entries = []
        for user in ("victim-4711", "never-seen-4712", "bystander"):
            reply = await ranking.recommend(user, page_size=3)
            entries.append(reply.items[0])
            assert (await explain(ranking, reply.items[0])).item == reply.items[0]
        for user in ("victim-4711", "never-seen-4712"):
            await ranking.stub.DeleteUser(pb2.DeleteUserRequest(catalog="default", user_id=user))
            for path in tmp_path.rglob("*"):
                assert path.is_dir() or user.encode() not in path.read_bytes(), path.name
        assert await is_gone(ranking, entries[0])
        assert await is_gone(ranking, entries[1])
        assert (await explain(ranking, entries[2])).item == entries[2]
        # A further page is a list for somebody new.
        again = await ranking.recommend("victim-4711", page_size=3)
        assert (await explain(ranking, again.items[0])).item == again.items[0]


async def test_nothing_is_kept_on_disk_where_that_is_switched_off(tmp_path: Path) -> None:
    async with ranking_of(tmp_path) as ranking:
        before = (await ranking.recommend("u")).items[0]
    async with ranking_of(tmp_path, served_lists_days=0) as ranking:
        reply = await ranking.recommend("u")
        assert (await explain(ranking, reply.items[0])).item == reply.items[0]
        assert "memory" in await is_gone(ranking, before)
        assert not list(tmp_path.glob("served_lists/*"))


async def test_a_full_queue_drops_records_and_no_request(tmp_path: Path) -> None:
    from ranking_service.served_lists import log_metrics

    def dropped() -> float:
        return log_metrics.PAGES.labels("dropped")._value.get()

    before = dropped()
    async with ranking_of(tmp_path, served_lists_queue_bytes=0) as ranking:
        reply = await ranking.recommend("u")
        assert reply.items
        assert dropped() == before + 1
        assert await is_gone(ranking, reply.items[0])
