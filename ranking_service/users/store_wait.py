"""Waits until this replica's store has what a consistency token asks for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from service_runtime import request_context
from service_runtime.errors import StoreUnavailable

T = TypeVar("T")
_POLL_S = 0.02


async def read_at(needed: int, read: Callable[[], tuple[T, int]], longest_s: float) -> tuple[T, int]:
    """What `read` gives once the sequence that comes with it is at least `needed`.

    Args:
        needed: Of the token.
        read: Reads the store, in a thread.
        longest_s: Longest wait in seconds; the call's deadline may end it sooner.

    Raises:
        StoreUnavailable: The store did not get there in time.
    """
    loop = asyncio.get_running_loop()
    give_up = loop.time() + min(longest_s, max(request_context.current().deadline.remaining(), 0.0))
    while True:
        found, sequence = await asyncio.to_thread(read)
        if sequence >= needed:
            return found, sequence
        if loop.time() + _POLL_S > give_up:
            raise StoreUnavailable(
                f"this replica's store is at sequence {sequence} and the consistency token asks for {needed}"
            )
        await asyncio.sleep(_POLL_S)
