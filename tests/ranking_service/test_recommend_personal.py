"""Lists that follow what a user does, over a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service_runtime.signed_token import TokenSigner, load_or_create_key
from tests.ranking_service.recommend_harness import Harness, ids, item, running_ranking, themed_catalog, themes
from zhiyin.common.v1.filter_pb2 import FieldIn, Filter
from zhiyin.common.v1.item_pb2 import AttributeValue
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2


@pytest.fixture
async def ranking(tmp_path: Path) -> AsyncIterator[Harness]:
    async with running_ranking(tmp_path, *themed_catalog()) as harness:
        yield harness


async def test_the_next_list_shows_the_event(ranking: Harness) -> None:
    before = await ranking.recommend("u")
    assert len(set(themes(before)[:5])) > 1
    token = await ranking.act("u", pb2.EVENT_TYPE_PURCHASE, "cooking-1")
    after = await ranking.recommend("u", consistency_token=token)
    assert themes(after)[:5] == ["cooking"] * 5
    assert after.items[0].reason.text == "Because you bought “recipe oven spice kitchen cooking1”"
    assert list(after.items[0].reason.item_ids) == ["cooking-1"]


async def test_several_interests_share_the_list(ranking: Harness) -> None:
    token = await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1", "travel-1", "film-2", "travel-2")
    reply = await ranking.recommend("u", consistency_token=token)
    counts = {theme: themes(reply).count(theme) for theme in ("film", "travel")}
    assert min(counts.values()) >= 3
    assert sum(counts.values()) >= 9


async def test_what_others_did_next_is_proposed(ranking: Harness) -> None:
    for user in range(6):
        session = {"session_id": f"s{user}"}
        await ranking.act(f"other-{user}", pb2.EVENT_TYPE_CLICK, "film-1", **session)
        await ranking.act(f"other-{user}", pb2.EVENT_TYPE_CLICK, "cooking-9", **session)
    token = await ranking.act("u", pb2.EVENT_TYPE_VIEW, "film-1")
    reply = await ranking.recommend("u", consistency_token=token)
    entry = next(entry for entry in reply.items if entry.item.id == "cooking-9")
    assert entry.rank <= 3
    assert entry.reason.source == pb2.SOURCE_KIND_TRANSITION
    assert entry.reason.text == "Others chose this after “movie cinema director actor film1”"


async def test_what_one_other_user_did_next_does_not_lead(ranking: Harness) -> None:
    await ranking.act("other", pb2.EVENT_TYPE_CLICK, "film-1", "cooking-9", "music-3", "travel-2")
    token = await ranking.act("u", pb2.EVENT_TYPE_VIEW, "film-1")
    reply = await ranking.recommend("u", consistency_token=token)
    assert themes(reply)[:3] == ["film"] * 3
    assert reply.items[0].reason.source == pb2.SOURCE_KIND_HISTORY


async def test_dislikes_push_away(ranking: Harness) -> None:
    for theme in ("music", "travel"):
        await ranking.act("u", pb2.EVENT_TYPE_LIKE, f"{theme}-1", f"{theme}-2")
    with_music = themes(await ranking.recommend("u"))
    token = await ranking.act("u", pb2.EVENT_TYPE_DISLIKE, "music-3", "music-4", "music-5")
    reply = await ranking.recommend("u", consistency_token=token)
    assert themes(reply).count("music") < with_music.count("music")
    assert themes(reply)[:3] == ["travel"] * 3


async def test_dislikes_alone_push_away(ranking: Harness) -> None:
    token = await ranking.act("u", pb2.EVENT_TYPE_DISLIKE, "music-3", "music-4")
    reply = await ranking.recommend("u", consistency_token=token)
    assert len(reply.items) == 10
    assert "music" not in themes(reply)


async def test_hidden_items_never_come_back_and_done_ones_only_when_asked(ranking: Harness) -> None:
    await ranking.act("u", pb2.EVENT_TYPE_CLICK, "film-1")
    await ranking.act("u", pb2.EVENT_TYPE_HIDE, "film-2")
    await ranking.act("u", pb2.EVENT_TYPE_SAVE, "film-4")
    token = await ranking.act("u", pb2.EVENT_TYPE_FINISH, "film-3")

    async def shown(**fields) -> set[str]:
        return set(ids(await ranking.recommend("u", page_size=48, consistency_token=token, **fields)))

    by_policy, with_seen, without_seen = await shown(), await shown(include_seen=True), await shown(include_seen=False)
    assert not {"film-2", "film-3", "film-4"} & by_policy
    assert "film-1" in by_policy
    assert {"film-3", "film-4"} <= with_seen
    assert "film-2" not in with_seen
    assert not {"film-1", "film-2", "film-3", "film-4"} & without_seen


async def test_no_reason_names_the_item_itself(ranking: Harness) -> None:
    alone = await ranking.act("u", pb2.EVENT_TYPE_SAVE, "film-1")
    for token in (alone, await ranking.act("u", pb2.EVENT_TYPE_SAVE, "film-2", "travel-1")):
        reply = await ranking.recommend("u", page_size=48, consistency_token=token, include_seen=True)
        assert "film-1" in ids(reply)
        for entry in reply.items:
            assert entry.item.id not in entry.reason.item_ids
            assert f"“{entry.item.title}”" not in entry.reason.text


async def test_what_was_just_acted_on_does_not_lead_the_list(ranking: Harness) -> None:
    token = await ranking.act("u", pb2.EVENT_TYPE_CLICK, "film-1", "film-2", "film-3")
    reply = await ranking.recommend("u", consistency_token=token)
    assert not {"film-1", "film-2", "film-3"} & set(ids(reply)[:5])


async def test_excluded_and_filtered_items_do_not_appear(ranking: Harness) -> None:
    await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1", "travel-1")
    excluded = [f"film-{n}" for n in range(6)]
    only = Filter(field_in=FieldIn(field="categories", values=[AttributeValue(string_value="Films")]))
    reply = await ranking.recommend("u", excluded_item_ids=excluded, filter=only, page_size=20)
    assert set(ids(reply)) == {f"film-{n}" for n in range(6, 12)}


async def test_unavailable_items_do_not_appear(ranking: Harness) -> None:
    ranking.retrieval.put(item("film-gone", "movie cinema director actor", "Films", available=False))
    for user in range(3):
        await ranking.act(f"fan-{user}", pb2.EVENT_TYPE_LIKE, "film-gone")
    token = await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1")
    reply = await ranking.recommend("u", consistency_token=token, page_size=48)
    assert "film-gone" not in ids(reply)


async def test_the_language_of_the_reader_decides_among_equals(ranking: Harness) -> None:
    for language in ("en", "zh", "fr"):
        ranking.retrieval.put(item(f"gadget-{language}", "gadget gadget", "Gadgets", language=language))
    for locale, first in (("zh-CN", "gadget-zh"), ("fr", "gadget-fr"), ("en-GB", "gadget-en")):
        context = pb2.RecommendContext(locale=locale)
        reply = await ranking.recommend(query_text="gadget", context=context, diversity=0)
        assert ids(reply)[0] == first


async def test_a_recent_search_counts(ranking: Harness) -> None:
    event = pb2.Event(user_id="u", type=pb2.EVENT_TYPE_SEARCH, text="mountain hotel")
    await ranking.stub.RecordEvents(pb2.RecordEventsRequest(catalog="default", events=[event]))
    reply = await ranking.recommend("u")
    assert themes(reply)[:5] == ["travel"] * 5
    assert reply.items[0].reason.text == "Because you searched for “mountain hotel”"


async def test_reasons_speak_chinese(ranking: Harness) -> None:
    await ranking.act("u", pb2.EVENT_TYPE_SAVE, "film-1")
    reply = await ranking.recommend("u", context=pb2.RecommendContext(locale="zh-Hans-CN"))
    assert reply.items[0].reason.text == "因为你收藏了“movie cinema director actor film1”"


async def test_every_entry_is_explained_or_not_at_all(ranking: Harness) -> None:
    await ranking.describe("u", "song and concert")
    token = await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1", "travel-4")
    reply = await ranking.recommend("u", consistency_token=token, page_size=30)
    for entry in reply.items:
        assert entry.sources
        assert all(source.rank >= 1 for source in entry.sources)
        assert len({source.source for source in entry.sources}) == len(entry.sources)
        assert entry.reason.text
        assert entry.reason.source in {source.source for source in entry.sources}
    bare = await ranking.recommend("u", explain=False)
    assert not any(entry.sources or entry.reason.text for entry in bare.items)
    assert all(entry.attribution_token for entry in bare.items)


async def test_ranks_are_consecutive_and_the_same_request_gives_the_same_list(ranking: Harness) -> None:
    token = await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1", "travel-4")
    first = await ranking.recommend("u", consistency_token=token, page_size=20)
    second = await ranking.recommend("u", consistency_token=token, page_size=20)
    assert [entry.rank for entry in first.items] == list(range(1, 21))
    assert ids(first) == ids(second)
    assert len(set(ids(first))) == 20


async def test_the_knob_changes_the_list(ranking: Harness) -> None:
    token = await ranking.act("u", pb2.EVENT_TYPE_LIKE, "film-1", "film-2", "film-3", "travel-1")
    plain = await ranking.recommend("u", consistency_token=token, diversity=0)
    scores = [entry.score for entry in plain.items]
    assert scores == sorted(scores, reverse=True)
    for method in (pb2.DIVERSITY_METHOD_MMR, pb2.DIVERSITY_METHOD_DPP):
        varied = await ranking.recommend("u", consistency_token=token, diversity=1, diversity_method=method)
        assert len(set(themes(varied))) > len(set(themes(plain)))
        usual = await ranking.recommend("u", consistency_token=token, diversity_method=method)
        assert ids(usual)[:3] == ids(plain)[:3]
    none = await ranking.recommend(
        "u", consistency_token=token, diversity=1, diversity_method=pb2.DIVERSITY_METHOD_NONE
    )
    assert ids(none) == ids(plain)


async def test_exploration_takes_its_share_and_says_its_chance(ranking: Harness, tmp_path: Path) -> None:
    await ranking.describe("u", "song and concert")
    signer = TokenSigner(load_or_create_key(tmp_path / "token.key"))
    lists = set()
    for _ in range(4):
        reply = await ranking.recommend("u", exploration=0.2, experiment_variant="b", page_size=20)
        explored = [entry for entry in reply.items if entry.reason.source == pb2.SOURCE_KIND_EXPLORATION]
        assert [entry.rank for entry in explored] == [5, 10, 15, 20]
        assert len(set(ids(reply))) == 20
        for entry in reply.items:
            payload = signer.verify("attribution", entry.attribution_token, "token")
            assert (payload["i"], payload["r"], payload["v"]) == (entry.item.id, entry.rank, "b")
            assert (0 < payload["p"] < 0.5) if entry in explored else payload["p"] == 1
        lists.add(tuple(ids(reply)))
    assert len(lists) > 1


async def test_events_take_the_attribution_token_back(ranking: Harness) -> None:
    reply = await ranking.recommend()
    entry = reply.items[0]
    await ranking.act("u", pb2.EVENT_TYPE_CLICK, entry.item.id, attribution_token=entry.attribution_token)


async def test_the_item_mask_decides_what_is_sent(ranking: Harness) -> None:
    ranking.retrieval.put(
        item(
            "film-x",
            "silent western",
            "Films",
            text="a long text",
            attributes={"year": AttributeValue(number_value=1999)},
        )
    )
    request = {"query_text": "silent western", "diversity": 0, "page_size": 1}
    usual = (await ranking.recommend(**request)).items[0].item
    assert (usual.id, usual.title, list(usual.categories), usual.text) == ("film-x", "silent western", ["Films"], "")
    assert not usual.HasField("created_at")
    asked = await ranking.recommend(**request, item_mask={"paths": ["text", "attributes"]})
    assert asked.items[0].item.text == "a long text"
    assert asked.items[0].item.attributes["year"].number_value == 1999
    assert not asked.items[0].item.title
