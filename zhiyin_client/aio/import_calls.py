"""Imports: any number of rows, with an end to how many are on their way."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from zhiyin.common.v1 import item_pb2
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin_client import methods
from zhiyin_client.aio.batch_sender import AsyncBatchSender, batched
from zhiyin_client.aio.batch_streams import event_stream, item_stream, user_stream
from zhiyin_client.aio.calls import AsyncCalls
from zhiyin_client.aio.primitives import AsyncRows, each
from zhiyin_client.bulk.batches import BatchLimits, Message, PreparedRow
from zhiyin_client.bulk.progress import ImportProgress, ImportSettings, RejectedRow, Tally
from zhiyin_client.values import with_id

_DEFAULT = ImportSettings()
OnProgress = Callable[[ImportProgress], None]
OnRejected = Callable[[RejectedRow], None]


class AsyncImportCalls(AsyncCalls):
    """Imports over streams.

    Rows are read only as fast as the server takes them. A service that restarts or is overloaded is waited for, as long
    as the settings' patience lasts, and what was on its way is sent again (by the sender, so not by gRPC too). A row
    that is not taken is rejected alone, not its batch. The progress, one object that changes, is told after each batch.

    All raise ImportStopped when the rest cannot be imported, and ZhiyinError when the server does not even tell its
    limits.
    """

    async def import_items(
        self,
        items: AsyncRows[item_pb2.Item],
        *,
        on_progress: OnProgress | None = None,
        on_rejected: OnRejected | None = None,
        settings: ImportSettings = _DEFAULT,
    ) -> ImportProgress:
        """Writes items, as `upsert_items` does. The last one of an id wins."""
        server = await self._call(methods.ITEM_LIMITS, retrieval.GetLimitsRequest())
        channel = self._connection.channel("retrieval", repeat=False)
        stream = item_stream(channel, self.catalog, self._connection.metadata, self._note)
        limits = settings.limits(server.max_items_per_batch, server.max_message_bytes)
        tally = Tally(server.max_message_bytes, on_progress, on_rejected)
        return await _run(stream, limits, tally, each(items))

    async def import_events(
        self,
        events: AsyncRows[ranking.Event],
        *,
        on_progress: OnProgress | None = None,
        on_rejected: OnRejected | None = None,
        settings: ImportSettings = _DEFAULT,
    ) -> ImportProgress:
        """Records events, as `record_events` does: those without an id are given one."""
        server = await self._call(methods.USER_LIMITS, ranking.GetLimitsRequest())
        channel = self._connection.channel("ranking", repeat=False)
        stream = event_stream(channel, self.catalog, self._connection.metadata, self._note)
        limits = settings.limits(server.max_events_per_batch, server.max_message_bytes)
        tally = Tally(server.max_message_bytes, on_progress, on_rejected)
        return await _run(stream, limits, tally, _identified(events))

    async def import_users(
        self,
        users: AsyncRows[ranking.User],
        *,
        on_progress: OnProgress | None = None,
        on_rejected: OnRejected | None = None,
        settings: ImportSettings = _DEFAULT,
    ) -> ImportProgress:
        """Writes users, as `upsert_users` does. The last one of an id wins."""
        server = await self._call(methods.USER_LIMITS, ranking.GetLimitsRequest())
        channel = self._connection.channel("ranking", repeat=False)
        stream = user_stream(channel, self.catalog, self._connection.metadata)
        limits = settings.limits(server.max_users_per_batch, server.max_message_bytes)
        tally = Tally(server.max_message_bytes, on_progress, on_rejected)
        return await _run(stream, limits, tally, each(users))

    def _note(self, response: Any) -> None:
        if self.written is not None:
            self.written.note(response)


async def _run(stream: Any, limits: BatchLimits, tally: Tally, rows: AsyncIterator[Message]) -> ImportProgress:
    try:
        await AsyncBatchSender(stream, limits, tally.accept, tally.reject).run(batched(_prepared(rows, tally), limits))
    finally:
        await stream.close()
    return tally.progress


async def _prepared(rows: AsyncIterator[Message], tally: Tally) -> AsyncIterator[PreparedRow]:
    async for message in rows:
        if (row := tally.prepared(message)) is not None:
            yield row


async def _identified(events: AsyncRows[ranking.Event]) -> AsyncIterator[ranking.Event]:
    async for event in each(events):
        yield with_id(event)
