"""Keeps the backend busy: one thread that computes whatever has gathered while it computed the last batch. No timer."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from encoder_service import metrics
from encoder_service.backend import Backend, pad
from encoder_service.batch_queue import BatchQueue, Lane, QueuedText
from service_runtime.admission import Crowd
from service_runtime.errors import DeadlineTooShort, NotReady
from service_runtime.telemetry import get_logger

_log = get_logger(__name__)
_FAILURES_UNTIL_UNREADY = 3
_PROBE_PERIOD_S = 0.5
# Smaller batches say nothing about the speed under load, which is what waits are estimated from.
_TELLING_FILL = 0.25
_SPEED_SMOOTHING = 0.2


@dataclass(slots=True, eq=False)
class PendingText(QueuedText):
    """A waiting text and who is told its vector.

    Attributes:
        vector: Resolves to [dimensions] float32, or fails.
    """

    vector: asyncio.Future[NDArray[np.float32]] = field(kw_only=True)


class DynamicBatcher:
    """The queue, the thread that empties it, and what is known about its speed. Used from one event loop.

    Args:
        backend: Computes batches; called in the thread of this object only.
        queue: Owned by this object from now on.
        pad_token_id: Fills the rows of a batch.
        max_wait_s: Longest wait, in seconds, for others' texts in the interactive lane; beyond it calls are refused.
    """

    def __init__(
        self, backend: Backend, queue: BatchQueue[PendingText], pad_token_id: int, max_wait_s: float = 0.5
    ) -> None:
        self._backend, self._queue, self._pad_token_id = backend, queue, pad_token_id
        self._max_wait_s = max_wait_s
        self._crowd = Crowd()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._room = asyncio.Event()
        self._closing = False
        self._tokens_per_second = 0.0
        self._running_until = 0.0
        self._failures_in_a_row = 0
        self._own_s = 0.0

    def start(self, tokens_per_second: float) -> None:
        """Starts the thread.

        Args:
            tokens_per_second: The speed measured at warm-up; corrected by every telling batch.
        """
        self._tokens_per_second = tokens_per_second
        metrics.QUEUE_LIMIT.set(self._queue.max_queued_tokens)
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._compute_batches, name="encoder-batches", daemon=True)
        self._thread.start()

    async def close(self) -> None:
        """Finishes what is queued, then stops. Nothing is admitted any more."""
        with self._changed:
            self._closing = True
            self._changed.notify()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join)

    @property
    def failing(self) -> bool:
        """Whether the backend has failed on the last few batches, one after the other."""
        return self._failures_in_a_row >= _FAILURES_UNTIL_UNREADY

    @property
    def tokens_per_second(self) -> float:
        """The measured speed under load, padding included."""
        return self._tokens_per_second

    def estimated_wait_s(self, tokens: int, lane: Lane) -> float:
        """Seconds until a request of so many tokens would be done, from what waits before it and what runs."""
        ahead = self._queue.queued_tokens(lane) + tokens
        running = max(self._running_until - time.monotonic(), 0.0)
        return running + ahead / self._tokens_per_second

    def require_turn(self) -> None:
        """Refuses interactive texts before they are tokenised, when `submit` would refuse them however short they are.

        Raises:
            Overloaded: What waits takes too long already.
        """
        with self._changed:
            wait_s = self.estimated_wait_s(0, Lane.INTERACTIVE)
            if wait_s > self._max_wait_s:
                metrics.REFUSED.labels("overloaded").inc()
                raise self._crowd.refuse("the encoder's queue", wait_s, self._own_s)

    def submit(self, rows: Sequence[Sequence[int]], lane: Lane, deadline: float) -> list[PendingText]:
        """Admits the texts of one request, all or none.

        Args:
            rows: Token ids of each text.
            lane: Who waits.
            deadline: On the monotonic clock.

        Raises:
            DeadlineTooShort: They would be done too late even if nobody else were there.
            Overloaded: The queue has no room, or they would be done too late because of what waits before them.
            NotReady: The service is stopping.
        """
        tokens = sum(len(row) for row in rows)
        loop = asyncio.get_running_loop()
        with self._changed:
            if self._closing:
                raise NotReady("the encoder service is stopping")
            own_s = tokens / self._tokens_per_second
            wait_s = self.estimated_wait_s(tokens, lane)
            remaining_s = deadline - time.monotonic()
            if own_s > remaining_s:
                metrics.REFUSED.labels("deadline").inc()
                raise DeadlineTooShort(
                    f"encoding {tokens} tokens takes about {own_s:.3f} s, and the deadline leaves "
                    f"{max(remaining_s, 0):.3f} s"
                )
            too_late = wait_s > remaining_s or (lane is Lane.INTERACTIVE and wait_s - own_s > self._max_wait_s)
            if too_late or not self._queue.has_room(tokens):
                metrics.REFUSED.labels("overloaded").inc()
                raise self._crowd.refuse("the encoder's queue", wait_s - own_s, own_s)
            texts = [PendingText(row, lane, deadline, vector=loop.create_future()) for row in rows]
            for text in texts:
                self._queue.add(text)
            self._own_s = own_s
            self._measure_queue()
            self._changed.notify()
        return texts

    async def wait_for_room(self, rows: Sequence[Sequence[int]]) -> None:
        """Waits until a request of these texts would not be refused for lack of room: backpressure for streams."""
        tokens = sum(len(row) for row in rows)
        while not self._has_room(tokens):
            self._room.clear()
            await self._room.wait()

    def hasten(self, text: PendingText, lane: Lane, deadline: float) -> None:
        """A second caller waits for the same text."""
        with self._changed:
            self._queue.hasten(text, lane, deadline)

    def cancel(self, text: PendingText) -> None:
        """Nobody waits for the text any more: no work is spent on it unless it has begun."""
        with self._changed:
            if self._queue.remove(text):
                metrics.DROPPED.labels("cancelled").inc()
                self._measure_queue()
        self._room.set()
        if not text.vector.done():
            text.vector.cancel()

    def _has_room(self, tokens: int) -> bool:
        with self._changed:
            return self._queue.has_room(tokens)

    def _compute_batches(self) -> None:
        """The thread: take, compute, deliver, until closed and empty."""
        while True:
            with self._changed:
                while not len(self._queue) and not self._closing and not self.failing:
                    self._changed.wait()
                if self._closing and not len(self._queue):
                    return
                if self.failing and not len(self._queue):
                    self._changed.wait(_PROBE_PERIOD_S)
                taken = self._queue.take(time.monotonic())
                self._measure_queue()
                batch = taken.batch
                padded = len(batch) * max((text.tokens for text in batch), default=0)
                self._running_until = time.monotonic() + padded / self._tokens_per_second
            if not batch and self.failing:
                self._probe()
            vectors, failure = self._compute(batch, padded) if batch else ([], None)
            assert self._loop is not None
            self._loop.call_soon_threadsafe(self._deliver, batch, vectors, failure, taken.expired)

    def _probe(self) -> None:
        """While the service is not ready no call arrives that could show that the backend works again."""
        with contextlib.suppress(Exception):
            self._backend.encode(*pad([[self._pad_token_id] * 3], self._pad_token_id))
            self._failures_in_a_row = 0

    def _compute(self, batch: list[PendingText], padded: int) -> tuple[list[NDArray[np.float32]], Exception | None]:
        started = time.monotonic()
        try:
            matrix = self._backend.encode(*pad([text.token_ids for text in batch], self._pad_token_id))
            # Copies, so that one cached row does not keep its whole batch alive.
            vectors, failure = [row.copy() for row in matrix], None
            self._failures_in_a_row = 0
        except Exception as error:
            vectors, failure = [], error
            self._failures_in_a_row += 1
            metrics.FAILED_BATCHES.inc()
            _log.error("batch_failed", texts=len(batch), padded_tokens=padded, exc_info=error)
        seconds = time.monotonic() - started
        if failure is None and padded >= self._queue.max_batch_tokens * _TELLING_FILL and seconds > 0:
            self._tokens_per_second += _SPEED_SMOOTHING * (padded / seconds - self._tokens_per_second)
        metrics.BATCH_TEXTS.observe(len(batch))
        metrics.BATCH_FILL.observe(padded / self._queue.max_batch_tokens)
        metrics.BATCH_SECONDS.observe(seconds)
        real = sum(text.tokens for text in batch)
        metrics.TEXT_TOKENS.inc(real)
        metrics.PADDING_TOKENS.inc(padded - real)
        return vectors, failure

    def _deliver(
        self,
        batch: list[PendingText],
        vectors: list[NDArray[np.float32]],
        failure: Exception | None,
        expired: list[PendingText],
    ) -> None:
        """On the event loop: tells everybody."""
        for i, text in enumerate(batch):
            if text.vector.done():
                continue
            if failure is None:
                text.vector.set_result(vectors[i])
            else:
                text.vector.set_exception(failure)
        for text in expired:
            metrics.DROPPED.labels("expired").inc()
            if not text.vector.done():
                text.vector.set_exception(DeadlineTooShort("the deadline passed while the text waited in the queue"))
        self._room.set()

    def _measure_queue(self) -> None:
        interactive = self._queue.queued_tokens(Lane.INTERACTIVE)
        metrics.QUEUED_INTERACTIVE.set(interactive)
        metrics.QUEUED_BULK.set(self._queue.queued_tokens() - interactive)
