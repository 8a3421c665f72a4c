"""Texts to vectors: cache, then what is being computed already, then the batcher. No text is computed twice at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from encoder_service import metrics
from encoder_service.batch_queue import Lane
from encoder_service.dynamic_batcher import DynamicBatcher, PendingText
from encoder_service.model_directory import Role
from encoder_service.tokenization import TextTokenizer, TokenizedText
from encoder_service.vector_cache import EncodedText, VectorCache, text_key

T = TypeVar("T")
# Hashing less than this takes well below a millisecond and stays on the event loop.
_HASH_ON_LOOP_CHARS = 65_536


@dataclass(frozen=True)
class EncodedTexts:
    """The answer to one request.

    Attributes:
        texts: In the order asked for.
        cached_count: How many came from the cache.
    """

    texts: list[EncodedText]
    cached_count: int


@dataclass(slots=True, eq=False)
class _InFlight:
    """A text being computed and how many requests wait for it."""

    pending: PendingText
    tokens: TokenizedText
    waiters: int = 0


class TextEncoder:
    """Encodes the texts of a request. Used from one event loop.

    Args:
        tokenizer: Of the model.
        batcher: Computes; started.
        cache: Filled with every computed text.
    """

    def __init__(self, tokenizer: TextTokenizer, batcher: DynamicBatcher, cache: VectorCache) -> None:
        self._tokenizer, self._batcher, self._cache = tokenizer, batcher, cache
        self._in_flight: dict[bytes, _InFlight] = {}
        self._threads = ThreadPoolExecutor(max_workers=1, thread_name_prefix="encoder-tokens")

    async def encode(self, texts: Sequence[str], role: Role, lane: Lane, deadline: float) -> EncodedTexts:
        """Encodes all texts or raises.

        Args:
            texts: Valid texts.
            role: Decides the prompt.
            lane: INTERACTIVE is refused when the queue is full; BULK waits for room.
            deadline: On the monotonic clock.

        Raises:
            Overloaded, DeadlineTooShort, NotReady: See `DynamicBatcher.submit`.
        """
        prompted = [self._tokenizer.prompted(text, role) for text in texts]
        keys = await self._hash(prompted)
        found = {key: entry for key in dict.fromkeys(keys) if (entry := self._cache.get(key)) is not None}
        cached_count = sum(key in found for key in keys)
        metrics.CACHE_HITS.inc(cached_count)
        metrics.CACHE_MISSES.inc(len(keys) - cached_count)
        missing = {key: text for key, text in zip(keys, prompted, strict=True) if key not in found}
        if missing:
            found |= await self._compute(missing, lane, deadline)
        return EncodedTexts([found[key] for key in keys], cached_count)

    def close(self) -> None:
        """Stops the tokenizer's thread."""
        self._threads.shutdown(wait=True)

    async def _hash(self, prompted: list[str]) -> list[bytes]:
        if sum(len(text) for text in prompted) <= _HASH_ON_LOOP_CHARS:
            return [text_key(text) for text in prompted]
        return await self._in_thread(lambda: [text_key(text) for text in prompted])

    async def _compute(self, missing: dict[bytes, str], lane: Lane, deadline: float) -> dict[bytes, EncodedText]:
        new = [key for key in missing if key not in self._in_flight]
        if new and lane is Lane.INTERACTIVE:
            self._batcher.require_turn()
        texts = [missing[key] for key in new]
        tokenized = dict(zip(new, await self._in_thread(lambda: self._tokenizer.tokenize(texts)), strict=True))
        if lane is Lane.BULK:
            await self._batcher.wait_for_room([t.token_ids for t in tokenized.values()])
        # No await from here to the registration, so that a text is never submitted twice. While this request waited
        # above, another may have submitted some of its texts, or one it counted on may have ended.
        done = {key: entry for key in missing if (entry := self._cache.get(key)) is not None}
        gone = [key for key in missing if key not in self._in_flight and key not in tokenized and key not in done]
        if gone:
            return await self._compute(missing, lane, deadline)
        flights = self._join(missing, tokenized, done, lane, deadline)
        try:
            if flights:
                await asyncio.wait([flight.pending.vector for flight in flights.values()])
            return done | {key: _result(flight) for key, flight in flights.items()}
        finally:
            self._leave(flights)

    def _join(
        self,
        missing: dict[bytes, str],
        tokenized: dict[bytes, TokenizedText],
        done: dict[bytes, EncodedText],
        lane: Lane,
        deadline: float,
    ) -> dict[bytes, _InFlight]:
        """Submits what nobody computes yet and registers this request as a waiter of everything it needs."""
        fresh = {k: t for k, t in tokenized.items() if k not in self._in_flight and k not in done}
        if fresh:
            pending = self._batcher.submit([tokens.token_ids for tokens in fresh.values()], lane, deadline)
            for (key, tokens), text in zip(fresh.items(), pending, strict=True):
                self._register(key, _InFlight(text, tokens))
        flights = {key: self._in_flight[key] for key in missing if key not in done}
        for key, flight in flights.items():
            flight.waiters += 1
            if key not in fresh:
                self._batcher.hasten(flight.pending, lane, deadline)
        return flights

    def _register(self, key: bytes, flight: _InFlight) -> None:
        self._in_flight[key] = flight

        def finished(future: asyncio.Future[NDArray[np.float32]]) -> None:
            self._in_flight.pop(key, None)
            if not future.cancelled() and future.exception() is None:
                self._cache.put(key, _result(flight))
                metrics.CACHE_BYTES.set(self._cache.bytes)

        flight.pending.vector.add_done_callback(finished)

    def _leave(self, flights: dict[bytes, _InFlight]) -> None:
        for key, flight in flights.items():
            flight.waiters -= 1
            if flight.waiters == 0 and not flight.pending.vector.done():
                # At once, and not when the future's callback runs: nobody may join a cancelled text meanwhile.
                self._in_flight.pop(key, None)
                self._batcher.cancel(flight.pending)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, work)


def _result(flight: _InFlight) -> EncodedText:
    return EncodedText(flight.pending.vector.result(), len(flight.tokens.token_ids), flight.tokens.truncated)
