"""What users were shown: kept in memory as the store has it, and only where a rule counts it."""

from __future__ import annotations

import random
import time
from pathlib import Path

from tests.ranking_service.user_side_harness import event, opened


async def test_what_is_in_memory_is_what_the_store_has(tmp_path: Path) -> None:
    chance = random.Random(3)
    async with opened(tmp_path) as ranking:
        reader, store = ranking.side.reader, ranking.side._store
        for _ in range(30):
            kind = chance.choice(["IMPRESSION", "IMPRESSION", "CLICK"])
            await ranking.record(*(event("ann", kind, f"item-{chance.randrange(4)}") for _ in range(3)))
            read = await reader.read("default", "ann", with_shown=True)
            stored, _ = store.read_state(1, "ann", 200, time.time() - 86_400)
            assert read == stored
            assert read.shown is not None


async def test_impressions_are_read_once_and_not_before_they_are_asked_for(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        await ranking.record(event("ann", "IMPRESSION", "a"))
        reader = ranking.side.reader
        assert (await reader.read("default", "ann")).shown is None
        assert set((await reader.read("default", "ann", with_shown=True)).shown or {}) == {"a"}
        answer = await ranking.record(event("ann", "IMPRESSION", "b"))
        # Read-your-writes, from memory.
        state = await reader.read("default", "ann", answer.consistency_token, with_shown=True)
        assert set(state.shown or {}) == {"a", "b"}
        assert state is await reader.read("default", "ann")


async def test_an_erased_user_was_shown_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as ranking:
        await ranking.record(event("ann", "IMPRESSION", "a"))
        await ranking.side.reader.read("default", "ann", with_shown=True)
        await ranking.side.erase("default", "ann")
        assert not (await ranking.side.reader.read("default", "ann", with_shown=True)).shown
