"""Classify over a port, with the fake model: what a caller sees."""

from __future__ import annotations

import grpc
import pytest

from encoder_service.fake_backend import FakeBackend
from tests.contracts.random_messages import RandomMessages
from zhiyin.encoder.v1 import encoder_service_pb2 as pb

LABELS = [
    pb.Label(id="music", descriptions=["w1", "w2 w3"]),
    pb.Label(id="film", descriptions=["w4"]),
    pb.Label(id="旅行", descriptions=["w5 w6"]),
]


async def test_a_text_equal_to_a_description_gets_its_label(serving) -> None:
    async with serving() as stub:
        answer = await stub.Classify(pb.ClassifyRequest(texts=["w4", "w5 w6"], labels=LABELS))
    assert [c.labels[0].id for c in answer.classifications] == ["film", "旅行"]
    for found in answer.classifications:
        assert len(found.labels) == 3
        assert not found.unknown
        assert sum(label.probability for label in found.labels) == pytest.approx(1)
        assert found.unlisted_probability == pytest.approx(0, abs=1e-9)
        assert sorted(found.labels, key=lambda label: -label.probability) == list(found.labels)
    assert answer.space_fingerprint == "f" * 32
    assert (answer.temperature, answer.calibration_examples) == (0.035, 0)


async def test_below_the_threshold_a_text_is_unknown(serving) -> None:
    async with serving() as stub:
        everything = await stub.Classify(pb.ClassifyRequest(texts=["w9"], labels=LABELS))
        best = everything.classifications[0].labels[0].probability
        for threshold, unknown in ((best - 1e-6, False), (min(best + 1e-6, 1.0), True)):
            asked = pb.ClassifyRequest(texts=["w9"], labels=LABELS, min_probability=threshold)
            found = (await stub.Classify(asked)).classifications[0]
            assert found.unknown is unknown
            assert (not found.labels) is unknown
            listed = sum(label.probability for label in found.labels)
            assert listed + found.unlisted_probability == pytest.approx(1)


async def test_max_labels_names_the_best_and_counts_the_rest(serving) -> None:
    async with serving() as stub:
        all_three = (await stub.Classify(pb.ClassifyRequest(texts=["w7"], labels=LABELS))).classifications[0]
        one = (await stub.Classify(pb.ClassifyRequest(texts=["w7"], labels=LABELS, max_labels=1))).classifications[0]
        many = await stub.Classify(
            pb.ClassifyRequest(texts=["w7"], labels=[pb.Label(id=f"{i}", descriptions=[f"w{i}"]) for i in range(20)])
        )
    assert list(one.labels) == [all_three.labels[0]]
    assert one.unlisted_probability == pytest.approx(1 - all_three.labels[0].probability)
    assert len(many.classifications[0].labels) == 10


@pytest.mark.parametrize("cache_bytes", [1 << 20, 0])
async def test_labels_are_encoded_once_where_there_is_a_cache(serving, cache_bytes: int) -> None:
    backend = FakeBackend()
    async with serving(backend, cache_bytes=cache_bytes) as stub:
        for i in range(3):
            await stub.Classify(pb.ClassifyRequest(texts=[f"w{10 + i}"], labels=LABELS))
        computed = sum(texts for texts, _ in backend.batches)
    assert computed == (4 + 3 if cache_bytes else 3 * (4 + 1))


async def test_repeated_texts_count_once_and_ids_are_only_names(serving) -> None:
    repeated = [
        pb.Label(id=f"my {label.id}", descriptions=[*label.descriptions, label.descriptions[0]]) for label in LABELS
    ]
    async with serving() as stub:
        first = await stub.Classify(pb.ClassifyRequest(texts=["w11"], labels=LABELS))
        second = await stub.Classify(pb.ClassifyRequest(texts=["w11"], labels=repeated))
    ours, theirs = first.classifications[0].labels, second.classifications[0].labels
    assert [f"my {score.id}" for score in ours] == [score.id for score in theirs]
    assert [score.probability for score in ours] == [score.probability for score in theirs]


async def test_other_examples_are_another_label_set(serving) -> None:
    """The text moves from the descriptions of one label to its examples, and from one label to the next."""
    sets = [
        [pb.Label(id="a", descriptions=["w1", "w2"]), pb.Label(id="b", descriptions=["w3"])],
        [pb.Label(id="a", descriptions=["w1"], examples=["w2"]), pb.Label(id="b", descriptions=["w3"])],
        [pb.Label(id="a", descriptions=["w1"]), pb.Label(id="b", descriptions=["w2", "w3"])],
    ]
    async with serving() as stub:
        answers = [await stub.Classify(pb.ClassifyRequest(texts=["w11"], labels=labels)) for labels in sets]
    similarities = {
        tuple(score.similarity for score in sorted(answer.classifications[0].labels, key=lambda s: s.id))
        for answer in answers
    }
    assert len(similarities) == 3


async def test_examples_change_the_answer_and_calibrate_it(serving) -> None:
    taught = [
        pb.Label(id=f"{i}", descriptions=[f"w{i}"], examples=[f"w{i} w{100 * i + j}" for j in range(8)])
        for i in (1, 2, 3)
    ]
    plain = [pb.Label(id=label.id, descriptions=label.descriptions) for label in taught]
    texts = [text for label in taught for text in label.examples]
    truth = [label.id for label in taught for _ in label.examples]

    def right(answer: pb.ClassifyResponse) -> int:
        return sum(found.labels[0].id == id_ for found, id_ in zip(answer.classifications, truth, strict=True))

    async with serving() as stub:
        with_examples = await stub.Classify(pb.ClassifyRequest(texts=texts, labels=taught))
        without = await stub.Classify(pb.ClassifyRequest(texts=texts, labels=plain))
    assert right(with_examples) > right(without)
    assert (with_examples.calibration_examples, without.calibration_examples) == (24, 0)
    # Random vectors tell nothing about one another, and the examples say so.
    assert with_examples.temperature > without.temperature


async def test_a_text_that_was_cut_says_so(serving) -> None:
    long = " ".join(f"w{i}" for i in range(100))
    async with serving() as stub:
        answer = await stub.Classify(pb.ClassifyRequest(texts=["w1", long], labels=LABELS))
    assert [found.truncated for found in answer.classifications] == [False, True]


async def test_a_deadline_that_the_labels_cannot_meet_is_refused_without_work(serving) -> None:
    backend = FakeBackend()
    labels = [pb.Label(id=f"{i}", descriptions=[f"w{i}"]) for i in range(30)]
    async with serving(backend, tokens_per_second=10.0) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.Classify(pb.ClassifyRequest(texts=["w1"], labels=labels), timeout=2)
    assert refused.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert backend.batches == []


async def test_mutations_of_a_good_request_are_answered_or_refused_by_name(serving) -> None:
    taught = [pb.Label(id=i, descriptions=[f"w{i}", "w8"], examples=[f"w{j}{i}" for j in range(1, 9)]) for i in "123"]
    good = pb.ClassifyRequest(texts=["w1", "w2"], labels=taught, min_probability=0.2, max_labels=2)
    make, codes = RandomMessages(1), set()
    async with serving() as stub:
        for _ in range(300):
            try:
                answer = await stub.Classify(make.mutate(good))
            except grpc.aio.AioRpcError as refused:
                codes.add(refused.code())
                continue
            codes.add(grpc.StatusCode.OK)
            for found in answer.classifications:
                listed = sum(label.probability for label in found.labels)
                assert listed + found.unlisted_probability == pytest.approx(1)
    assert codes == {grpc.StatusCode.OK, grpc.StatusCode.INVALID_ARGUMENT}
