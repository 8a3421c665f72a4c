"""Sends batches, several on their way at once; the plan says which, and what an answer means."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

from zhiyin_client.aio.batch_streams import AsyncBatchStream
from zhiyin_client.aio.primitives import sleep
from zhiyin_client.bulk.batches import BatchCutter, BatchLimits, PreparedRow
from zhiyin_client.bulk.sending_plan import SendingPlan


class AsyncBatchSender:
    """Drives one import over a stream of batches.

    Rows are taken from the caller only while there is room for them on the way: a slow server slows the caller down,
    and memory holds no more than the batches on their way.

    `on_accepted`, with the number of rows known before, and `on_rejected` hear of every row exactly once.
    """

    def __init__(
        self,
        stream: AsyncBatchStream,
        limits: BatchLimits,
        on_accepted: Callable[[list[PreparedRow], int], None],
        on_rejected: Callable[[PreparedRow, str], None],
        sleep: Callable[[float], Awaitable[None]] = sleep,
    ) -> None:
        self._stream = stream
        self._plan = SendingPlan(limits, on_accepted, on_rejected)
        self._sleep = sleep

    async def run(self, batches: AsyncIterator[list[PreparedRow]]) -> None:
        """Sends all batches and returns once every row is resolved.

        Raises ImportStopped when the import cannot go on.
        """
        plan = self._plan
        while True:
            while plan.has_room:
                if plan.wants_rows and (batch := await anext(batches, None)):
                    plan.offer(batch)
                if (ready := plan.next_to_send()) is None:
                    break
                number, rows = ready
                await self._stream.send(number, [row.message for row in rows])
            if not plan.awaits_answers:
                return
            pause_s = plan.resolve(await self._stream.receive())
            if pause_s:
                await self._sleep(pause_s)


async def batched(rows: AsyncIterator[PreparedRow], limits: BatchLimits) -> AsyncIterator[list[PreparedRow]]:
    """Cuts rows into batches within the limits and without an id twice."""
    cutter = BatchCutter(limits)
    async for row in rows:
        if (batch := cutter.add(row)) is not None:
            yield batch
    if (batch := cutter.rest()) is not None:
        yield batch
