"""The import algorithm against a server that refuses in every way the contract allows."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

import grpc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zhiyin.common.v1 import item_pb2
from zhiyin_client.bulk.batches import BatchAnswer, BatchLimits, ImportStopped, PreparedRow
from zhiyin_client.refusals import Refusal, Violation
from zhiyin_client.sync.batch_sender import BatchSender, batched


def _rows(ids: list[str]) -> list[PreparedRow]:
    return [
        PreparedRow(ordinal, None, item_pb2.Item(id=item_id, title=f"title {ordinal}"))
        for ordinal, item_id in enumerate(ids, start=1)
    ]


class FakeServer:
    """A catalogue behind a BatchStream: refuses items whose id says so and, at random, whole batches for a moment."""

    def __init__(self, seed: int = 0, overload_share: float = 0.0, names_rows: bool = True) -> None:
        self.items: dict[str, str] = {}
        self.batch_sizes: list[int] = []
        self._random = random.Random(seed)
        self._overload_share = overload_share
        self._names_rows = names_rows
        self._waiting: deque[tuple[int, list[Any]]] = deque()

    def send(self, number: int, messages: list[Any]) -> None:
        assert len({message.id for message in messages}) == len(messages)
        self._waiting.append((number, messages))

    def receive(self) -> BatchAnswer:
        number, messages = self._waiting.popleft()
        self.batch_sizes.append(len(messages))
        if self._random.random() < self._overload_share:
            return BatchAnswer(number, Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "queue full", retry_after_s=0.05))
        bad = [index for index, message in enumerate(messages) if message.id.startswith("bad")]
        if bad:
            violations = (
                tuple(Violation(f"items[{index}].title", "too long") for index in bad) if self._names_rows else ()
            )
            return BatchAnswer(number, Refusal(grpc.StatusCode.INVALID_ARGUMENT, "invalid", violations=violations))
        self.items |= {message.id: message.title for message in messages}
        return BatchAnswer(number)


def _send(server: Any, rows: list[PreparedRow], limits: BatchLimits) -> tuple[list[str], dict[str, str]]:
    accepted: list[str] = []
    rejected: dict[str, str] = {}
    sender = BatchSender(
        server,
        limits,
        on_accepted=lambda batch, known_before: accepted.extend(row.key for row in batch),
        on_rejected=lambda row, reason: rejected.update({row.key: reason}),
        sleep=lambda seconds: None,
    )
    sender.run(batched(iter(rows), limits))
    return accepted, rejected


@settings(max_examples=60, deadline=None)
@given(
    bad=st.sets(st.integers(0, 60), max_size=20),
    count=st.integers(0, 60),
    max_rows=st.integers(1, 17),
    in_flight=st.integers(1, 5),
    overload_share=st.sampled_from([0.0, 0.4]),
    names_rows=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_every_row_is_accepted_or_rejected_exactly_once(
    bad: set[int], count: int, max_rows: int, in_flight: int, overload_share: float, names_rows: bool, seed: int
) -> None:
    ids = [f"bad-{number}" if number in bad else f"item-{number}" for number in range(count)]
    server = FakeServer(seed, overload_share, names_rows)
    limits = BatchLimits(max_rows=max_rows, in_flight=in_flight, patience_s=1e6)

    accepted, rejected = _send(server, _rows(ids), limits)

    assert sorted([*accepted, *rejected]) == sorted(ids)
    assert set(rejected) == {item_id for item_id in ids if item_id.startswith("bad")}
    assert set(server.items) == set(accepted)


def test_a_named_row_is_rejected_with_the_field_and_the_rest_goes_through() -> None:
    server = FakeServer()
    accepted, rejected = _send(server, _rows(["a", "bad-b", "c"]), BatchLimits())
    assert accepted == ["a", "c"]
    assert rejected == {"bad-b": "title: too long"}
    assert server.batch_sizes == [3, 2]


@settings(max_examples=60, deadline=None)
@given(
    ids=st.lists(st.sampled_from("abcdef"), max_size=40),
    max_rows=st.integers(1, 6),
    in_flight=st.integers(1, 4),
    seed=st.integers(0, 1000),
)
def test_the_last_row_of_an_id_wins_even_when_batches_are_sent_again(
    ids: list[str], max_rows: int, in_flight: int, seed: int
) -> None:
    server = FakeServer(seed, overload_share=0.5)
    rows = _rows(ids)
    _send(server, rows, BatchLimits(max_rows=max_rows, in_flight=in_flight, patience_s=1e6))
    assert server.items == {row.message.id: row.message.title for row in rows}  # type: ignore[union-attr]


def test_batches_keep_their_size_in_bytes() -> None:
    rows = _rows([f"{'x' * 100}-{number}" for number in range(50)])
    limits = BatchLimits(max_rows=1000, max_bytes=1000)
    batches = list(batched(iter(rows), limits))
    assert [row for batch in batches for row in batch] == rows
    assert all(sum(row.size_bytes for row in batch) <= 1000 for batch in batches)


class AlwaysRefusing:
    def __init__(self, refusal: Refusal) -> None:
        self.refusal = refusal
        self.sent = 0
        self._numbers: deque[int] = deque()

    def send(self, number: int, messages: list[Any]) -> None:
        self.sent += 1
        self._numbers.append(number)

    def receive(self) -> BatchAnswer:
        return BatchAnswer(self._numbers.popleft(), self.refusal)


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal(grpc.StatusCode.FAILED_PRECONDITION, "the encoder serves another model", reason="SPACE_MISMATCH"),
        Refusal(grpc.StatusCode.NOT_FOUND, "no catalog books"),
        Refusal(grpc.StatusCode.INVALID_ARGUMENT, "invalid", violations=(Violation("catalog", "must not be empty"),)),
    ],
)
def test_a_fault_that_no_row_is_to_blame_for_stops_the_import(refusal: Refusal) -> None:
    server = AlwaysRefusing(refusal)
    with pytest.raises(ImportStopped) as failure:
        _send(server, _rows([f"i{number}" for number in range(100)]), BatchLimits(max_rows=10, in_flight=1))
    assert server.sent == 1
    assert refusal.message in str(failure.value) or "catalog" in str(failure.value)


def test_waiting_for_a_server_ends_with_its_last_words() -> None:
    server = AlwaysRefusing(Refusal(grpc.StatusCode.UNAVAILABLE, "the encoder is down"))
    with pytest.raises(ImportStopped, match="the encoder is down"):
        _send(server, _rows(["a"]), BatchLimits(patience_s=5.0))
    assert server.sent > 3
