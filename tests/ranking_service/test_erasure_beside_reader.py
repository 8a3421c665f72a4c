"""An erasure while somebody reads for long, as a backup does: it is acknowledged, and holds nobody up."""

from __future__ import annotations

import asyncio
import sqlite3
from contextlib import closing
from pathlib import Path

from tests.ranking_service.user_side_harness import event, opened

# Far above what both take together, far below SQLite's own patience with a reader.
BOUND_S = 9.0


async def test_an_erasure_beside_a_long_reader_holds_up_neither_itself_nor_other_writes(tmp_path: Path) -> None:
    async with opened(tmp_path) as users:
        await users.record(event("eve", "LIKE", "a"), event("ann", "LIKE", "a"))
        with closing(sqlite3.connect(tmp_path / "users.sqlite3", isolation_level=None)) as reader:
            reader.execute("BEGIN")
            assert reader.execute("SELECT count(*) FROM events").fetchone() == (2,)
            async with asyncio.timeout(BOUND_S):
                erasing = asyncio.create_task(users.delete("eve"))
                while not erasing.done():
                    await users.record(event("ann", "LIKE", "b"))
                    await asyncio.sleep(0.05)
            assert (await erasing).existed
            assert reader.execute("SELECT count(*) FROM events").fetchone() == (2,), "it kept its state"
