"""Rows on their way, and how they are cut into batches."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from zhiyin.common.v1 import item_pb2
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb2
from zhiyin_client.refusals import Refusal

Message = item_pb2.Item | ranking_pb2.Event | ranking_pb2.User


class ImportStopped(Exception):
    """An import cannot go on; the message says why. `__cause__`, where there is one, is the failed call."""


@dataclass(frozen=True)
class PreparedRow:
    """A row ready to be sent."""

    ordinal: int
    """Its place among all rows of the import, from 1."""
    row: Any
    """Where it came from: whatever its caller knows it by."""
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


@dataclass(frozen=True)
class BatchLimits:
    """How large a batch may be and how many may be on their way."""

    max_rows: int = 200
    max_bytes: int = 1024 * 1024
    in_flight: int = 4
    patience_s: float = 120.0
    """How long nothing but temporary refusals may come back before the import stops."""

    def within(self, server_rows: int, server_message_bytes: int) -> BatchLimits:
        """These limits, narrowed to what a server takes: rows a batch, bytes a message."""
        return BatchLimits(
            max_rows=min(self.max_rows, server_rows),
            max_bytes=min(self.max_bytes, server_message_bytes * 3 // 4),  # each row has a few bytes around it
            in_flight=self.in_flight,
            patience_s=self.patience_s,
        )


class BatchCutter:
    """Cuts rows into batches within the limits and without an id twice.

    A row larger than `max_bytes` gets a batch of its own.
    """

    def __init__(self, limits: BatchLimits) -> None:
        self._limits = limits
        self._batch: list[PreparedRow] = []
        self._keys: set[str] = set()
        self._size = 0

    def add(self, row: PreparedRow) -> list[PreparedRow] | None:
        """Takes a row; gives the batch that was full before it."""
        size, key = row.size_bytes, row.key
        full = len(self._batch) >= self._limits.max_rows or self._size + size > self._limits.max_bytes
        done = self.rest() if self._batch and (full or key in self._keys) else None
        self._batch.append(row)
        self._keys.add(key)
        self._size += size
        return done

    def rest(self) -> list[PreparedRow] | None:
        """What is left when there are no more rows."""
        batch = self._batch
        self._batch, self._keys, self._size = [], set(), 0
        return batch or None
