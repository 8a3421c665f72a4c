"""Classify with the default model on real texts, through the services as they come."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from benchmarks.classify import classify, described, news_labels, read_titles, with_examples
from benchmarks.stack import Stack
from zhiyin.encoder.v1 import encoder_service_pb2 as pb
from zhiyin.encoder.v1.encoder_service_pb2_grpc import EncoderServiceStub

TITLES = 400
# What a shop's visitors write, and how it would describe what they want, in either language.
INTENTS = {
    "buy": ["looking for a product to buy", "想买东西，挑选商品"],
    "return": ["wants to send something back and get the money back", "退货退款"],
    "delivery": ["asks where the parcel is and when it arrives", "查询快递和物流，什么时候送到"],
    "praise": ["is happy and says thanks", "表扬、感谢，非常满意"],
}
MESSAGES = {
    "any recommendations for running shoes under 100 dollars?": "buy",
    "I need a birthday present for my sister": "buy",
    "it broke after two days, I want a refund": "return",
    "the jacket does not fit, how do I send it back?": "return",
    "my package still has not arrived": "delivery",
    "when will my order be here?": "delivery",
    "great service, thank you so much": "praise",
    "I love it, five stars": "praise",
    "有没有一百块以内的蓝牙耳机推荐": "buy",
    "想给妈妈买一件生日礼物": "buy",
    "衣服不合身，我要退掉": "return",
    "东西坏了，请把钱退给我": "return",
    "我的包裹到哪里了": "delivery",
    "快递怎么还没到": "delivery",
    "质量很好，谢谢店家": "praise",
    "太喜欢了，五星好评": "praise",
}


@pytest.fixture(scope="module")
def encoder(default_stack: Stack) -> Iterator[EncoderServiceStub]:
    with grpc.insecure_channel(default_stack.encoder_address) as channel:
        yield EncoderServiceStub(channel)


@pytest.mark.parametrize("language", [0, 1], ids=["english", "chinese"])
def test_intents_in_two_languages_from_descriptions_in_one(encoder: EncoderServiceStub, language: int) -> None:
    labels = [pb.Label(id=id_, descriptions=[words[language]]) for id_, words in INTENTS.items()]
    answer = encoder.Classify(pb.ClassifyRequest(texts=list(MESSAGES), labels=labels), timeout=60)
    wrong = {
        text: found.labels[0].id
        for (text, intent), found in zip(MESSAGES.items(), answer.classifications, strict=True)
        if found.labels[0].id != intent
    }
    assert len(wrong) <= 4, wrong


def test_chinese_news_titles(encoder: EncoderServiceStub, test_data: Path) -> None:
    """Floors well below what benchmarks/results/classify.json shows, as 400 titles have a standard error of .025."""
    labels = news_labels()
    titles, pool = read_titles(test_data / "tnews-titles", labels)
    texts, truth = titles.texts[:TITLES], titles.truth[:TITLES]
    zero_shot = classify(encoder, texts, described(labels))
    taught = classify(encoder, texts, with_examples(described(labels), pool, 8, seed=0))
    assert zero_shot.accuracy(truth) > 0.40
    assert taught.accuracy(truth) > 0.42
    for answers in (zero_shot, taught):
        assert answers.calibration_error(truth) < 0.15
        assert answers.probabilities.sum(axis=1) == pytest.approx(1)
    assert zero_shot.temperature == pytest.approx(0.035, abs=0.001)
