"""kill -9 of both services under a mixed load, with their stores in PostgreSQL: the suites of SQLite, on a server."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.durability import test_ranking_kills, test_retrieval_kills
from tests.durability.kill_rounds import NewStore
from tests.postgres_cluster import Cluster


@pytest.fixture
def new_store(postgres_cluster: Cluster) -> Iterator[NewStore]:
    """An empty store for each data directory."""
    with contextlib.ExitStack() as stores:
        yield lambda _data_dir: stores.enter_context(postgres_cluster.store())


STRIKES = [2, pytest.param(60, marks=[pytest.mark.long, pytest.mark.timeout(1500)])]


@pytest.mark.parametrize("wanted", STRIKES)
async def test_what_was_acknowledged_survives_kills_of_ranking(
    new_store: NewStore, wanted: int, tmp_path: Path
) -> None:
    strikes = await test_ranking_kills.kill_rounds(tmp_path, wanted, new_store)
    assert min(strikes.counts.values()) >= wanted


@pytest.mark.parametrize("wanted", STRIKES)
async def test_what_was_acknowledged_survives_kills_of_retrieval(
    new_store: NewStore, wanted: int, tmp_path: Path
) -> None:
    strikes = await test_retrieval_kills.kill_rounds(tmp_path, wanted, new_store)
    assert min(strikes.counts.values()) >= wanted
