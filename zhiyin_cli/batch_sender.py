"""Sends rows in batches, several on their way at once, until each row is either accepted or rejected with a reason.

The server takes a batch whole or not at all. When it refuses one:
- a temporary refusal (queue full, a service down) is tried again after the hint the server gave;
- violations that name rows (`items[3].title`) reject these rows, and the rest of the batch is sent again;
- any other fault of the data is found by halving the batch until one row is left to blame;
- everything else (wrong model, unknown catalogue, a bug) stops the import: no other row would fare better.
"""

from __future__ import annotations

import re
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol

import grpc

from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb2
from zhiyin_cli.server_errors import Refusal
from zhiyin_offline.rows.row_errors import ImportFailed
from zhiyin_offline.rows.row_messages import Message
from zhiyin_offline.rows.row_source import SourceRow

_ROW_IN_PATH = re.compile(r"^\w+\[(\d+)\]\.?(.*)$")
_FAULTS_OF_DATA = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.OUT_OF_RANGE)
_FIRST_BACKOFF_S = 0.2
# Each batch on its way waits in turn: together they wait as often as there are batches.
_LONGEST_BACKOFF_S = 1.0


@dataclass(frozen=True)
class PreparedRow:
    """A row ready to be sent."""

    ordinal: int
    """Its place among all rows of the import, from 1."""
    row: SourceRow
    message: Message

    @property
    def key(self) -> str:
        """The id that a later row with the same id replaces."""
        return self.message.event_id if isinstance(self.message, ranking_pb2.Event) else self.message.id

    @property
    def size_bytes(self) -> int:
        """Size on the wire."""
        return self.message.ByteSize()


@dataclass(frozen=True)
class BatchAnswer:
    """The server's answer to one batch: accepted when `refusal` is None."""

    number: int
    refusal: Refusal | None = None
    known_before: int = 0
    """How many rows of an accepted batch the server had already, so that they changed nothing."""


class BatchStream(Protocol):
    """Carries batches to a server and brings back one answer for each, in any order."""

    def send(self, number: int, messages: list[Message]) -> None:
        """Hands over one batch; does not wait for the answer."""

    def receive(self) -> BatchAnswer:
        """Waits for the next answer."""


@dataclass(frozen=True)
class BatchLimits:
    """How large a batch may be and how many may be on their way."""

    max_rows: int = 200
    max_bytes: int = 1024 * 1024
    in_flight: int = 4
    patience_s: float = 120.0
    """How long nothing but temporary refusals may come back before the import stops."""


class BatchSender:
    """Drives one import over a BatchStream.

    `on_accepted`, with the number of rows known before, and `on_rejected` hear of every row exactly once.
    """

    def __init__(
        self,
        stream: BatchStream,
        limits: BatchLimits,
        on_accepted: Callable[[list[PreparedRow], int], None],
        on_rejected: Callable[[PreparedRow, str], None],
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._stream = stream
        self._limits = limits
        self._on_accepted = on_accepted
        self._on_rejected = on_rejected
        self._sleep = sleep
        self._next_number = 1
        self._in_flight: dict[int, list[PreparedRow]] = {}
        self._to_send_again: deque[list[PreparedRow]] = deque()
        self._held: list[PreparedRow] | None = None
        self._waited_s = 0.0

    def run(self, batches: Iterator[list[PreparedRow]]) -> None:
        """Sends all batches and returns once every row is resolved.

        Raises ImportFailed when the import cannot go on.
        """
        while True:
            while len(self._in_flight) < self._limits.in_flight and (batch := self._next_batch(batches)):
                self._send(batch)
            if not self._in_flight:
                return
            answer = self._stream.receive()
            self._resolve(self._in_flight.pop(answer.number), answer)

    def _next_batch(self, batches: Iterator[list[PreparedRow]]) -> list[PreparedRow] | None:
        if self._to_send_again:
            return self._to_send_again.popleft()
        batch = self._held or next(batches, None)
        self._held = None
        if batch and self._would_overtake(batch):
            self._held = batch
            return None
        return batch

    def _would_overtake(self, batch: list[PreparedRow]) -> bool:
        """Whether an earlier row with an id of this batch is still on its way.

        It must not arrive after the later one and win.
        """
        waiting = {row.key for rows in [*self._in_flight.values(), *self._to_send_again] for row in rows}
        return any(row.key in waiting for row in batch)

    def _send(self, batch: list[PreparedRow]) -> None:
        number = self._next_number
        self._next_number += 1
        self._in_flight[number] = batch
        self._stream.send(number, [row.message for row in batch])

    def _resolve(self, batch: list[PreparedRow], answer: BatchAnswer) -> None:
        refusal = answer.refusal
        if refusal is None:
            self._waited_s = 0.0
            self._on_accepted(batch, answer.known_before)
        elif refusal.is_temporary:
            self._to_send_again.append(batch)
            self._wait(refusal)
        elif refusal.code in _FAULTS_OF_DATA:
            self._waited_s = 0.0
            self._reject(batch, refusal)
        else:
            raise ImportFailed(f"the server refused a batch: {refusal}")

    def _wait(self, refusal: Refusal) -> None:
        if self._waited_s >= self._limits.patience_s:
            raise ImportFailed(f"nothing was accepted for {self._waited_s:.0f} s: {refusal}")
        hint_s = refusal.retry_after_s
        pause_s = (
            min(max(_FIRST_BACKOFF_S, self._waited_s), _LONGEST_BACKOFF_S) if hint_s is None else max(hint_s, 0.01)
        )
        self._waited_s += pause_s
        self._sleep(pause_s)

    def _reject(self, batch: list[PreparedRow], refusal: Refusal) -> None:
        blamed = _blamed_rows(refusal, len(batch))
        if refusal.violations and not blamed:
            raise ImportFailed(f"the server refused the request: {_all_reasons(refusal)}")
        if blamed:
            for index, reason in blamed.items():
                self._on_rejected(batch[index], reason)
            rest = [row for index, row in enumerate(batch) if index not in blamed]
            if rest:
                self._to_send_again.append(rest)
        elif len(batch) == 1:
            self._on_rejected(batch[0], refusal.message)
        else:
            half = len(batch) // 2
            self._to_send_again.extend([batch[:half], batch[half:]])


def _blamed_rows(refusal: Refusal, size: int) -> dict[int, str]:
    blamed: dict[int, str] = {}
    for path, description in refusal.violations:
        if (match := _ROW_IN_PATH.match(path)) and int(match[1]) < size:
            reason = f"{match[2]}: {description}" if match[2] else description
            index = int(match[1])
            blamed[index] = f"{blamed[index]}; {reason}" if index in blamed else reason
    return blamed


def _all_reasons(refusal: Refusal) -> str:
    return "; ".join(f"{path}: {description}" for path, description in refusal.violations) or refusal.message


def batched(rows: Iterator[PreparedRow], limits: BatchLimits) -> Iterator[list[PreparedRow]]:
    """Cuts rows into batches within the limits and without an id twice.

    A row larger than `max_bytes` gets a batch of its own.
    """
    batch: list[PreparedRow] = []
    keys: set[str] = set()
    size = 0
    for row in rows:
        full = len(batch) >= limits.max_rows or size + row.size_bytes > limits.max_bytes
        if batch and (full or row.key in keys):
            yield batch
            batch, keys, size = [], set(), 0
        batch.append(row)
        keys.add(row.key)
        size += row.size_bytes
    if batch:
        yield batch
