"""How far an import is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from zhiyin_client.bulk.batches import BatchLimits, Message, PreparedRow

_KEPT_REJECTIONS = 100
MESSAGE_OVERHEAD_BYTES = 1024
"""Room around the one row of a message."""


@dataclass(frozen=True)
class RejectedRow:
    """A row that the server does not take."""

    ordinal: int
    """Its place among the rows, from 1."""
    message: Message
    reason: str
    """With the field, such as `title: must not be empty`."""


@dataclass
class ImportProgress:
    """What became of the rows so far; when an import has returned, of all."""

    read: int = 0
    """Rows taken from the caller."""
    accepted: int = 0
    """Durable rows."""
    known_before: int = 0
    """Events among them that the server had already, and did not count again."""
    rejected: int = 0
    done: int = 0
    """Rows, from the first, that are all accepted or rejected. To go on after a crash, skip so many; rows after them
    that were accepted too may be sent again without harm (events: where they have ids of their own)."""
    rejections: list[RejectedRow] = field(default_factory=list)
    """The first 100; `on_rejected` hears of every one."""


class Tally:
    """Keeps the progress of an import and tells it."""

    def __init__(
        self,
        max_message_bytes: int,
        on_progress: Callable[[ImportProgress], None] | None,
        on_rejected: Callable[[RejectedRow], None] | None,
    ) -> None:
        self.progress = ImportProgress()
        self._max_row_bytes = max_message_bytes - MESSAGE_OVERHEAD_BYTES
        self._on_progress = on_progress
        self._on_rejected = on_rejected
        self._unresolved: set[int] = set()

    def prepared(self, message: Message) -> PreparedRow | None:
        """Takes a row in. None: it is rejected already, being larger than any message that the server takes."""
        self.progress.read += 1
        row = PreparedRow(self.progress.read, None, message)
        self._unresolved.add(row.ordinal)
        if row.size_bytes > self._max_row_bytes:
            too_large = f"{row.size_bytes:,} bytes, more than the {self._max_row_bytes:,} that the server takes"
            self.reject(row, too_large)
            return None
        return row

    def accept(self, batch: list[PreparedRow], known_before: int) -> None:
        """A batch is durable."""
        self._unresolved.difference_update(row.ordinal for row in batch)
        self.progress.accepted += len(batch)
        self.progress.known_before += known_before
        self._tell()

    def reject(self, row: PreparedRow, reason: str) -> None:
        """A row is not taken."""
        self._unresolved.discard(row.ordinal)
        self.progress.rejected += 1
        rejected = RejectedRow(row.ordinal, row.message, reason)
        if len(self.progress.rejections) < _KEPT_REJECTIONS:
            self.progress.rejections.append(rejected)
        if self._on_rejected is not None:
            self._on_rejected(rejected)
        self._tell()

    def _tell(self) -> None:
        self.progress.done = min(self._unresolved) - 1 if self._unresolved else self.progress.read
        if self._on_progress is not None:
            self._on_progress(self.progress)


@dataclass(frozen=True)
class ImportSettings:
    """How an import goes about it."""

    batch_rows: int = BatchLimits.max_rows
    in_flight: int = BatchLimits.in_flight
    patience_s: float = BatchLimits.patience_s

    def limits(self, server_rows: int, server_message_bytes: int) -> BatchLimits:
        """Within what the server takes."""
        wanted = BatchLimits(self.batch_rows, BatchLimits.max_bytes, self.in_flight, self.patience_s)
        return wanted.within(server_rows, server_message_bytes)
