"""Imports: any number of rows, with an end to how many are on their way."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from zhiyin.common.v1 import item_pb2
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin_client import methods
from zhiyin_client.bulk.batches import BatchLimits, Message, PreparedRow
from zhiyin_client.bulk.progress import ImportProgress, ImportSettings, RejectedRow, Tally
from zhiyin_client.sync.batch_sender import BatchSender, batched
from zhiyin_client.sync.batch_streams import event_stream, item_stream, user_stream
from zhiyin_client.sync.calls import Calls
from zhiyin_client.sync.primitives import Rows, each
from zhiyin_client.values import with_id

_DEFAULT = ImportSettings()
OnProgress = Callable[[ImportProgress], None]
OnRejected = Callable[[RejectedRow], None]


class ImportCalls(Calls):
    """Imports over streams.

    Rows are read only as fast as the server takes them. A service that restarts or is overloaded is waited for, as long
    as the settings' patience lasts, and what was on its way is sent again (by the sender, so not by gRPC too). A row
    that is not taken is rejected alone, not its batch. The progress, one object that changes, is told after each batch.

    All raise ImportStopped when the rest cannot be imported, and ZhiyinError when the server does not even tell its
    limits.
    """

    def import_items(
        self,
        items: Rows[item_pb2.Item],
        *,
        on_progress: OnProgress | None = None,
        on_rejected: OnRejected | None = None,
        settings: ImportSettings = _DEFAULT,
    ) -> ImportProgress:
        """Writes items, as `upsert_items` does. The last one of an id wins."""
        server = self._call(methods.ITEM_LIMITS, retrieval.GetLimitsRequest())
        channel = self._connection.channel("retrieval", repeat=False)
        stream = item_stream(channel, self.catalog, self._connection.metadata, self._note)
        limits = settings.limits(server.max_items_per_batch, server.max_message_bytes)
        tally = Tally(server.max_message_bytes, on_progress, on_rejected)
        return _run(stream, limits, tally, each(items))

    def import_events(
        self,
        events: Rows[ranking.Event],
        *,
        on_progress: OnProgress | None = None,
        on_rejected: OnRejected | None = None,
        settings: ImportSettings = _DEFAULT,
    ) -> ImportProgress:
        """Records events, as `record_events` does: those without an id are given one."""
        server = self._call(methods.USER_LIMITS, ranking.GetLimitsRequest())
        channel = self._connection.channel("ranking", repeat=False)
        stream = event_stream(channel, self.catalog, self._connection.metadata, self._note)
        limits = settings.limits(server.max_events_per_batch, server.max_message_bytes)
        tally = Tally(server.max_message_bytes, on_progress, on_rejected)
        return _run(stream, limits, tally, _identified(events))

    def import_users(
        self,
        users: Rows[ranking.User],
        *,
        on_progress: OnProgress | None = None,
        on_rejected: OnRejected | None = None,
        settings: ImportSettings = _DEFAULT,
    ) -> ImportProgress:
        """Writes users, as `upsert_users` does. The last one of an id wins."""
        server = self._call(methods.USER_LIMITS, ranking.GetLimitsRequest())
        channel = self._connection.channel("ranking", repeat=False)
        stream = user_stream(channel, self.catalog, self._connection.metadata)
        limits = settings.limits(server.max_users_per_batch, server.max_message_bytes)
        tally = Tally(server.max_message_bytes, on_progress, on_rejected)
        return _run(stream, limits, tally, each(users))

    def _note(self, response: Any) -> None:
        if self.written is not None:
            self.written.note(response)


def _run(stream: Any, limits: BatchLimits, tally: Tally, rows: Iterator[Message]) -> ImportProgress:
    try:
        BatchSender(stream, limits, tally.accept, tally.reject).run(batched(_prepared(rows, tally), limits))
    finally:
        stream.close()
    return tally.progress


def _prepared(rows: Iterator[Message], tally: Tally) -> Iterator[PreparedRow]:
    for message in rows:
        if (row := tally.prepared(message)) is not None:
            yield row


def _identified(events: Rows[ranking.Event]) -> Iterator[ranking.Event]:
    for event in each(events):
        yield with_id(event)
