"""Every RPC and every error of the encoder, over a port, with the fake model."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import numpy as np
import pytest
from google.rpc import error_details_pb2, status_pb2

from encoder_service.fake_backend import FakeBackend
from zhiyin.common.v1.embedding_pb2 import VECTOR_DTYPE_FLOAT16, VECTOR_DTYPE_FLOAT32
from zhiyin.encoder.v1 import encoder_service_pb2 as pb

StatusOf = Callable[[grpc.aio.AioRpcError], status_pb2.Status]
CLS, SEP, FIND, ITEM = 1, 2, 4, 5


def word(i: int) -> int:
    return 6 + i


def matrix(response: pb.EmbedResponse) -> np.ndarray:
    dtype = {VECTOR_DTYPE_FLOAT32: "<f4", VECTOR_DTYPE_FLOAT16: "<f2"}[response.embeddings.dtype]
    flat = np.frombuffer(response.embeddings.data, dtype)
    return flat.reshape(response.embeddings.rows, response.embeddings.dimensions)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for something another thread does."""
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


def detail(status: status_pb2.Status, kind: type) -> Any:
    for packed in status.details:
        message = kind()
        if packed.Unpack(message):
            return message
    raise AssertionError(f"no {kind.__name__} in {status}")


async def test_embed_answers_in_the_order_of_the_texts_with_what_a_caller_needs(serving) -> None:
    backend = FakeBackend()
    async with serving(backend) as stub:
        long = " ".join(f"w{i}" for i in range(100))
        response = await stub.Embed(pb.EmbedRequest(texts=["w1 w2", long, "w3"]))
    assert list(response.token_counts) == [5, 32, 4]
    assert list(response.truncated) == [False, True, False]
    assert response.embeddings.space_fingerprint == "f" * 32
    assert response.build_fingerprint == "b" * 32
    assert response.encode_time.ToTimedelta().total_seconds() > 0
    vectors = matrix(response)
    np.testing.assert_array_equal(vectors[0], backend.vector_of(np.array([CLS, FIND, word(1), word(2), SEP])))
    np.testing.assert_array_equal(vectors[2], backend.vector_of(np.array([CLS, FIND, word(3), SEP])))


async def test_the_role_decides_the_prompt_and_unset_means_query(serving) -> None:
    backend = FakeBackend()
    async with serving(backend) as stub:
        by_role = {
            role: matrix(await stub.Embed(pb.EmbedRequest(texts=["w1"], role=role)))[0]
            for role in (pb.TEXT_ROLE_UNSPECIFIED, pb.TEXT_ROLE_QUERY, pb.TEXT_ROLE_PASSAGE, pb.TEXT_ROLE_RAW)
        }
    np.testing.assert_array_equal(by_role[pb.TEXT_ROLE_UNSPECIFIED], by_role[pb.TEXT_ROLE_QUERY])
    np.testing.assert_array_equal(by_role[pb.TEXT_ROLE_PASSAGE], backend.vector_of(np.array([CLS, ITEM, word(1), SEP])))
    np.testing.assert_array_equal(by_role[pb.TEXT_ROLE_RAW], backend.vector_of(np.array([CLS, word(1), SEP])))


async def test_float16_on_request(serving) -> None:
    async with serving() as stub:
        wide = await stub.Embed(pb.EmbedRequest(texts=["w1", "w2"]))
        narrow = await stub.Embed(pb.EmbedRequest(texts=["w1", "w2"], dtype=VECTOR_DTYPE_FLOAT16))
    assert len(narrow.embeddings.data) == 2 * 8 * 2
    np.testing.assert_allclose(matrix(narrow), matrix(wide), atol=1e-3)


async def test_all_violations_are_reported_at_once(serving, status_of: StatusOf) -> None:
    async with serving(max_text_bytes=16, max_texts_per_request=5) as stub:
        texts = ["", "w1", " \u3000\n", "w" * 17, "a\0b", "more than allowed"]
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Embed(pb.EmbedRequest(texts=texts, role=17, dtype=9))
    assert raised.value.code() == grpc.StatusCode.INVALID_ARGUMENT
    bad = detail(status_of(raised.value), error_details_pb2.BadRequest)
    fields = {violation.field for violation in bad.field_violations}
    assert fields == {"texts", "texts[0]", "texts[2]", "texts[3]", "texts[4]", "role", "dtype"}


async def test_no_text_at_all_is_a_violation(serving, status_of: StatusOf) -> None:
    async with serving() as stub:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Embed(pb.EmbedRequest())
    bad = detail(status_of(raised.value), error_details_pb2.BadRequest)
    assert [violation.field for violation in bad.field_violations] == ["texts"]


async def test_another_space_than_expected_is_refused_with_both_names(serving, status_of: StatusOf) -> None:
    async with serving() as stub:
        await stub.Embed(pb.EmbedRequest(texts=["w1"], expected_space_fingerprint="f" * 32))
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Embed(pb.EmbedRequest(texts=["w1"], expected_space_fingerprint="another"))
    assert raised.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert detail(status_of(raised.value), error_details_pb2.ErrorInfo).reason == "SPACE_MISMATCH"
    assert "another" in raised.value.details()
    assert "f" * 32 in raised.value.details()


async def test_a_full_queue_refuses_with_a_measured_delay_and_serves_again(serving, status_of: StatusOf) -> None:
    backend = FakeBackend()
    backend.gate.clear()
    async with serving(backend, max_queued_tokens=512, tokens_per_second=1000.0) as stub:
        running = asyncio.ensure_future(stub.Embed(pb.EmbedRequest(texts=["w0"]), timeout=20))
        await until(lambda: bool(backend.batches))
        texts = [" ".join(f"w{i}" for i in range(j, j + 29)) for j in range(16)]  # 32 tokens each, 512 in all
        waiting = asyncio.ensure_future(stub.Embed(pb.EmbedRequest(texts=texts), timeout=20))
        refused = None
        while refused is None:  # until the waiting request has reached the queue
            try:
                await asyncio.wait_for(stub.Embed(pb.EmbedRequest(texts=["w900", "w901"]), timeout=1), 0.1)
            except TimeoutError:
                continue
            except grpc.aio.AioRpcError as error:
                refused = error
        backend.gate.set()
        assert (await running).embeddings.rows == 1
        assert (await waiting).embeddings.rows == 16
        assert (await stub.Embed(pb.EmbedRequest(texts=["w900"]))).embeddings.rows == 1
    assert refused.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
    delay = detail(status_of(refused), error_details_pb2.RetryInfo).retry_delay.ToTimedelta().total_seconds()
    assert 0.001 <= delay < 1.0
    assert any(key == "grpc-retry-pushback-ms" for key, _ in refused.trailing_metadata())


async def test_a_deadline_that_the_queue_cannot_meet_is_refused_without_work(serving, status_of: StatusOf) -> None:
    backend = FakeBackend()
    async with serving(backend, tokens_per_second=10.0) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await stub.Embed(pb.EmbedRequest(texts=[f"w{i}" for i in range(30)]), timeout=2)  # 120 tokens: 12 s
    assert raised.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert detail(status_of(raised.value), error_details_pb2.ErrorInfo).reason == "DEADLINE_TOO_SHORT"
    assert backend.batches == []


async def test_the_text_of_a_caller_who_left_is_never_computed(serving) -> None:
    backend = FakeBackend()
    backend.gate.clear()
    async with serving(backend) as stub:
        running = asyncio.ensure_future(stub.Embed(pb.EmbedRequest(texts=["w0"]), timeout=20))
        await until(lambda: bool(backend.batches))
        leaving = stub.Embed(pb.EmbedRequest(texts=["w1", "w2"]), timeout=20)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.shield(asyncio.ensure_future(_code_of(leaving))), 0.2)
        leaving.cancel()
        await asyncio.sleep(0.1)
        backend.gate.set()
        await running
        await stub.Embed(pb.EmbedRequest(texts=["w3"]))
    assert backend.batches == [(1, 4), (1, 4)]


async def _code_of(call) -> grpc.StatusCode:
    with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
        await call
    return await call.code()


async def test_a_text_wanted_many_times_at_once_is_computed_once(serving) -> None:
    backend = FakeBackend()
    backend.gate.clear()
    async with serving(backend) as stub:
        calls = [asyncio.ensure_future(stub.Embed(pb.EmbedRequest(texts=["w1", "w2", "w1"]))) for _ in range(20)]
        await until(lambda: bool(backend.batches))
        await asyncio.sleep(0.1)
        backend.gate.set()
        answers = [matrix(response) for response in await asyncio.gather(*calls)]
    assert sum(texts for texts, _ in backend.batches) == 2
    for answer in answers:
        np.testing.assert_array_equal(answer, answers[0])
        np.testing.assert_array_equal(answer[0], answer[2])


async def test_one_of_two_callers_leaving_does_not_take_the_text_from_the_other(serving) -> None:
    backend = FakeBackend()
    backend.gate.clear()
    async with serving(backend) as stub:
        blocker = asyncio.ensure_future(stub.Embed(pb.EmbedRequest(texts=["w0"]), timeout=20))
        await until(lambda: bool(backend.batches))
        leaving = stub.Embed(pb.EmbedRequest(texts=["w1"]), timeout=20)
        staying = asyncio.ensure_future(stub.Embed(pb.EmbedRequest(texts=["w1"]), timeout=20))
        await asyncio.sleep(0.1)
        leaving.cancel()
        await asyncio.sleep(0.1)
        backend.gate.set()
        await blocker
        np.testing.assert_array_equal(matrix(await staying)[0], backend.vector_of(np.array([CLS, FIND, word(1), SEP])))


async def test_the_second_time_comes_from_the_cache(serving) -> None:
    backend = FakeBackend()
    async with serving(backend) as stub:
        first = await stub.Embed(pb.EmbedRequest(texts=["w1", "w2"]))
        second = await stub.Embed(pb.EmbedRequest(texts=["w2", "w5", "w1", "w2"]))
        raw = await stub.Embed(pb.EmbedRequest(texts=["find w1"], role=pb.TEXT_ROLE_RAW))
    assert (first.cached_count, second.cached_count, raw.cached_count) == (0, 3, 1)
    np.testing.assert_array_equal(matrix(second)[[2, 0]], matrix(first))
    assert sum(texts for texts, _ in backend.batches) == 3


async def test_answers_match_their_texts_under_concurrency(serving) -> None:
    backend = FakeBackend(seconds_per_token=2e-6)
    rng = np.random.default_rng(0)
    async with serving(backend, cache_bytes=20_000) as stub:

        async def caller() -> None:
            for _ in range(10):
                rows = [rng.integers(0, 200, rng.integers(1, 20)) for _ in range(rng.integers(1, 12))]
                texts = [" ".join(f"w{i}" for i in row) for row in rows]
                answer = matrix(await stub.Embed(pb.EmbedRequest(texts=texts)))
                for vector, row in zip(answer, rows, strict=True):
                    ids = np.array([CLS, FIND, *(word(i) for i in row), SEP])
                    np.testing.assert_array_equal(vector, backend.vector_of(ids))

        await asyncio.gather(*(caller() for _ in range(12)))


async def test_a_stream_answers_in_order_and_goes_on_after_a_refused_batch(serving) -> None:
    backend = FakeBackend()
    async with serving(backend, max_texts_per_request=3) as stub:

        async def batches() -> AsyncIterator[pb.EmbedStreamRequest]:
            for number in range(12):
                texts = ["w1"] * 4 if number == 5 else [f"w{number}", f"w{number + 100}"]
                yield pb.EmbedStreamRequest(batch_number=1000 + number, texts=texts, role=pb.TEXT_ROLE_PASSAGE)

        answers = [answer async for answer in stub.EmbedStream(batches())]
    assert [answer.batch_number for answer in answers] == [1000 + i for i in range(12)]
    assert answers[5].error.code == grpc.StatusCode.INVALID_ARGUMENT.value[0]
    assert answers[5].error.reason == "INVALID_REQUEST"
    assert [violation.field for violation in answers[5].error.violations] == ["texts"]
    for number in (0, 4, 6, 11):
        expected = backend.vector_of(np.array([CLS, ITEM, word(number), SEP]))
        np.testing.assert_array_equal(matrix(answers[number].embedded)[0], expected)


async def test_a_stream_reads_on_only_while_it_has_room(serving_in_process) -> None:
    backend = FakeBackend()
    backend.gate.clear()
    read = 0

    async def batches() -> AsyncIterator[pb.EmbedStreamRequest]:
        nonlocal read
        for number in range(50):
            read += 1
            yield pb.EmbedStreamRequest(batch_number=number, texts=[f"w{number}"])

    async with serving_in_process(backend, stream_read_ahead=3) as servicer:
        answers = servicer.EmbedStream(batches(), None)
        first = asyncio.ensure_future(anext(answers))
        await until(lambda: bool(backend.batches))
        await asyncio.sleep(0.1)
        assert read == 3
        backend.gate.set()
        await first
        assert len([answer async for answer in answers]) == 49


async def test_a_caller_who_leaves_a_stream_frees_the_queue(serving_in_process) -> None:
    backend = FakeBackend()
    backend.gate.clear()

    async def batches() -> AsyncIterator[pb.EmbedStreamRequest]:
        for number in range(50):
            yield pb.EmbedStreamRequest(batch_number=number, texts=[f"w{number}"])

    async with serving_in_process(backend, stream_read_ahead=8) as servicer:
        blocker = asyncio.ensure_future(servicer.Embed(pb.EmbedRequest(texts=["w999"]), None))
        await until(lambda: bool(backend.batches))
        answers = servicer.EmbedStream(batches(), None)
        first = asyncio.ensure_future(anext(answers))
        await asyncio.sleep(0.1)
        first.cancel()
        await asyncio.gather(first, return_exceptions=True)
        await answers.aclose()
        backend.gate.set()
        again = pb.EmbedRequest(texts=["w1000"])
        assert (await servicer.Embed(again, None)).embeddings.rows == 1
        await blocker
    assert sum(texts for texts, _ in backend.batches) == 2


async def test_a_stream_waits_for_room_in_the_queue_instead_of_failing(serving) -> None:
    backend = FakeBackend(seconds_per_token=1e-6)
    async with serving(backend, max_queued_tokens=512) as stub:

        async def batches() -> AsyncIterator[pb.EmbedStreamRequest]:
            for number in range(40):
                texts = [f"w{number} w{i} w3 w4 w5 w6 w7 w8" for i in range(60)]  # 660 tokens: more than the queue
                yield pb.EmbedStreamRequest(batch_number=number, texts=texts)

        answers = [answer async for answer in stub.EmbedStream(batches())]
    assert [answer.WhichOneof("result") for answer in answers] == ["embedded"] * 40


async def test_an_interactive_text_overtakes_a_waiting_stream(serving) -> None:
    backend = FakeBackend()
    backend.gate.clear()
    async with serving(backend, max_batch_tokens=16) as stub:

        async def batches() -> AsyncIterator[pb.EmbedStreamRequest]:
            yield pb.EmbedStreamRequest(batch_number=0, texts=[f"w{i} w1 w2 w3 w4 w5 w6" for i in range(50)])

        stream = stub.EmbedStream(batches())
        first = asyncio.ensure_future(stream.read())
        await until(lambda: bool(backend.batches))
        quick = asyncio.ensure_future(stub.Embed(pb.EmbedRequest(texts=["w77"]), timeout=20))
        await asyncio.sleep(0.2)
        backend.gate.set()
        await quick
        await first
    lengths = [length for _, length in backend.batches]
    assert lengths.index(4) <= 2, "the interactive text came after the running batch, before the waiting ones"


async def test_a_failing_backend_is_an_internal_error_then_not_ready_and_recovers(serving) -> None:
    backend = FakeBackend()
    async with serving(backend) as stub:
        backend.failure = RuntimeError("secret detail")
        codes = []
        for i in range(4):
            with pytest.raises(grpc.aio.AioRpcError) as raised:
                await stub.Embed(pb.EmbedRequest(texts=[f"w{i}"]))
            assert "secret" not in raised.value.details()
            codes.append(raised.value.code())
        assert codes == [grpc.StatusCode.INTERNAL] * 3 + [grpc.StatusCode.UNAVAILABLE]
        backend.failure = None
        async with asyncio.timeout(10):
            while True:
                with contextlib.suppress(grpc.aio.AioRpcError):
                    assert (await stub.Embed(pb.EmbedRequest(texts=["w0"]))).embeddings.rows == 1
                    break
                await asyncio.sleep(0.05)


async def test_model_info_and_limits(serving) -> None:
    async with serving(max_texts_per_request=77, max_text_bytes=1234, default_deadline_s=3) as stub:
        info = await stub.GetModelInfo(pb.GetModelInfoRequest())
        limits = await stub.GetLimits(pb.GetLimitsRequest())
    assert (info.model_name, info.dimensions, info.max_tokens, info.pooling, info.normalized) == (
        "fake",
        8,
        32,
        "mean",
        True,
    )
    assert dict(info.prompts) == {"query": "find ", "passage": "item "}
    assert (info.precision, info.provider) == ("fp32", "FakeExecutionProvider")
    assert (limits.max_texts_per_request, limits.max_text_bytes, limits.max_queued_tokens) == (77, 1234, 4096)
    assert limits.default_deadline.seconds == 3
    assert (limits.max_labels_per_request, limits.max_label_texts_per_request) == (256, 2048)


async def test_a_stop_finishes_what_is_queued(serving_in_process) -> None:
    backend = FakeBackend()
    backend.gate.clear()
    async with serving_in_process(backend, max_batch_tokens=16) as servicer:
        calls = [asyncio.ensure_future(servicer.Embed(pb.EmbedRequest(texts=[f"w{i}"]), None)) for i in range(30)]
        await until(lambda: bool(backend.batches))
        await asyncio.sleep(0.1)
        asyncio.get_running_loop().call_later(0.1, backend.gate.set)
    answers = await asyncio.gather(*calls)
    assert [answer.embeddings.rows for answer in answers] == [1] * 30
