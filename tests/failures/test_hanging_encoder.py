"""An encoder that hangs takes no room from those who do not need it, whatever the timeout is."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import grpc

from tests.failures.faulty_link import Link
from tests.failures.stack_under_test import stack_under_test

# More than any door lets in.
COLD = 40
# The encoder's timeout and the deadline of the calls that wait for it: no call of this test ends by either.
LONG_S = 60.0


async def as_told(call: Callable[[], Awaitable[object]]) -> None:
    """A call that comes again when the door is full: a flood takes a moment to get through it, and back."""
    until = asyncio.get_running_loop().time() + LONG_S / 3
    while True:
        try:
            await call()
            return
        except grpc.aio.AioRpcError as error:
            full = error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
            if not full or asyncio.get_running_loop().time() > until:
                raise
        await asyncio.sleep(0.3)


async def test_calls_that_wait_for_a_hanging_encoder_keep_nobody_out(tmp_path: Path) -> None:
    async with stack_under_test(tmp_path, LONG_S) as stack, stack.client() as client:
        await stack.links["encoder"].turn(Link.FROZEN)
        needs_it = ("Recommend, cold user with a query", "Search by text")
        waiting = [asyncio.ensure_future(client.calls(LONG_S)[name]()) for name in needs_it for _ in range(COLD)]
        try:
            for _ in range(3):
                for name in ("Recommend, warm user", "Search by vector"):
                    await as_told(client.calls(LONG_S / 2)[name])
            assert not [call.result() for call in waiting if call.done()]
        finally:
            for call in waiting:
                call.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        # Those who gave up left nothing behind.
        for name in ("Recommend, warm user", "Search by vector"):
            await as_told(client.calls(LONG_S / 2)[name])
