"""An encoder that hangs takes no room from those who do not need it, whatever the timeout is."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tests.failures.faulty_link import Link
from tests.failures.stack_under_test import stack_under_test

# More than any door lets in.
COLD = 40
# The encoder's timeout and the deadline of the calls that wait for it: no call of this test ends by either.
LONG_S = 60.0


async def test_calls_that_wait_for_a_hanging_encoder_keep_nobody_out(tmp_path: Path) -> None:
    async with stack_under_test(tmp_path, LONG_S) as stack, stack.client() as client:
        await stack.links["encoder"].turn(Link.FROZEN)
        needs_it = ("Recommend, cold user with a query", "Search by text")
        waiting = [asyncio.ensure_future(client.calls(LONG_S)[name]()) for name in needs_it for _ in range(COLD)]
        try:
            for _ in range(3):
                for name in ("Recommend, warm user", "Search by vector"):
                    await client.calls(LONG_S / 2)[name]()
            assert not [call.result() for call in waiting if call.done()]
        finally:
            for call in waiting:
                call.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
        # Those who gave up left nothing behind.
        for name in ("Recommend, warm user", "Search by vector"):
            await client.calls(LONG_S / 2)[name]()
