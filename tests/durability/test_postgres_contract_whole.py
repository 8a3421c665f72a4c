"""All tests of both services that write and read, on PostgreSQL; a part of them is in `test_postgres_contract.py`."""

from __future__ import annotations

import pytest

from tests.ranking_service.test_events_recorded import *  # noqa: F403
from tests.ranking_service.test_events_stream import *  # noqa: F403
from tests.ranking_service.test_statistics_restart import *  # noqa: F403
from tests.ranking_service.test_users_cache import *  # noqa: F403
from tests.ranking_service.test_users_over_grpc import *  # noqa: F403
from tests.ranking_service.test_users_rpcs import *  # noqa: F403
from tests.retrieval_service.test_index_recovery import *  # noqa: F403
from tests.retrieval_service.test_retrieval_rpcs import *  # noqa: F403

pytestmark = pytest.mark.long

# These look into SQLite's own file and settings.
for name in set(globals()) & {
    "test_the_database_is_as_careful_as_promised",
    "test_the_store_is_opened_for_durability",
    "test_an_erasure_leaves_no_bytes_and_no_trace_in_the_statistics",
    "test_an_erasure_while_others_write_and_read",
}:
    del globals()[name]


@pytest.fixture(autouse=True)
def _on_postgresql(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZHIYIN_RANKING_STORE_URL", postgres_url)
    monkeypatch.setenv("ZHIYIN_RETRIEVAL_STORE_URL", postgres_url)
