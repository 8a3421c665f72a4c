"""One import from a file to a service: read, check, send, report.

Every row ends as accepted or as rejected with its place and reason; the summary counts both.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass, field

from zhiyin_cli.import_state import Checkpoint, ImportState
from zhiyin_client.bulk.batches import BatchLimits, PreparedRow
from zhiyin_client.bulk.progress import MESSAGE_OVERHEAD_BYTES
from zhiyin_client.sync.batch_sender import BatchSender, batched
from zhiyin_client.sync.batch_streams import BatchStream
from zhiyin_offline.rows.row_errors import BadRow
from zhiyin_offline.rows.row_messages import Message, message_of
from zhiyin_offline.rows.row_source import RowSource, SourceRow

_ROWS_BETWEEN_CHECKPOINTS = 2_000


@dataclass
class ImportSummary:
    """What became of the rows of one import."""

    accepted: int = 0
    """Rows accepted in this run."""
    known_before: int = 0
    """Events among them that the server had already."""
    rejected: int = 0
    """Rows rejected, in this run and in the runs it resumes."""
    skipped: int = 0
    """Rows that an earlier, resumed run had resolved."""
    first_reasons: list[str] = field(default_factory=list)
    """Places and reasons of the first rejected rows of this run, for the screen."""


class ImportRun:
    """Imports one source. `on_progress` is told the summary after each change."""

    def __init__(
        self,
        source: RowSource,
        build: Callable[[SourceRow], Message],
        stream: BatchStream,
        limits: BatchLimits,
        max_message_bytes: int,
        state: ImportState,
        on_progress: Callable[[ImportSummary], None] = lambda summary: None,
    ) -> None:
        self._source = source
        self._build = build
        self._limits = limits
        self._max_row_bytes = max_message_bytes - MESSAGE_OVERHEAD_BYTES
        self._state = state
        self._on_progress = on_progress
        self._summary = ImportSummary()
        self._sender = BatchSender(
            stream, limits, self._accept, lambda row, why: self._reject(row.ordinal, row.row, why)
        )
        self._read = 0
        self._unresolved: set[int] = set()
        self._last_checkpoint = 0

    def run(self, resume: bool) -> ImportSummary:
        """Runs to the end.

        Raises ImportFailed or ImportStopped when the rest cannot be imported; the checkpoint then stands for what was.
        """
        self._read = self._summary.skipped = self._last_checkpoint = self._state.start(resume).rows_done
        self._summary.rejected = self._state.rejected_count
        try:
            with closing(self._prepared_rows()) as rows:
                self._sender.run(batched(rows, self._limits))
        except BaseException:
            self._checkpoint()
            self._state.close()
            raise
        self._state.finish()
        return self._summary

    def _prepared_rows(self) -> Generator[PreparedRow, None, None]:
        for ordinal, row in enumerate(self._source, start=1):
            if ordinal <= self._summary.skipped:
                continue
            self._unresolved.add(ordinal)
            self._read = ordinal
            try:
                prepared = PreparedRow(ordinal, row, message_of(row, self._build))
                if prepared.size_bytes > self._max_row_bytes:
                    raise BadRow(
                        f"{prepared.size_bytes:,} bytes, more than the {self._max_row_bytes:,} that the server takes"
                    )
            except BadRow as exc:
                self._reject(ordinal, row, str(exc))
            else:
                yield prepared

    def _accept(self, batch: list[PreparedRow], known_before: int) -> None:
        self._unresolved.difference_update(row.ordinal for row in batch)
        self._summary.accepted += len(batch)
        self._summary.known_before += known_before
        self._after_change()

    def _reject(self, ordinal: int, row: SourceRow, reason: str) -> None:
        self._unresolved.discard(ordinal)
        self._state.reject(ordinal, row, reason)
        self._summary.rejected = self._state.rejected_count
        if len(self._summary.first_reasons) < 5:
            self._summary.first_reasons.append(f"{row.file}:{row.line}: {reason}")
        self._after_change()

    def _after_change(self) -> None:
        self._on_progress(self._summary)
        if self._rows_done() - self._last_checkpoint >= _ROWS_BETWEEN_CHECKPOINTS:
            self._checkpoint()

    def _rows_done(self) -> int:
        return min(self._unresolved) - 1 if self._unresolved else self._read

    def _checkpoint(self) -> None:
        self._last_checkpoint = self._rows_done()
        self._state.save(Checkpoint(self._last_checkpoint))
