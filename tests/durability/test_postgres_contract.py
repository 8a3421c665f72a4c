"""What the stores promise on SQLite they promise on PostgreSQL: tests of both services again, on a real server.

The tests are those of the services' own folders. Here the variable of the service names a fresh database.
"""

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


@pytest.fixture(autouse=True)
def _on_postgresql(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZHIYIN_RANKING_STORE_URL", postgres_url)
    monkeypatch.setenv("ZHIYIN_RETRIEVAL_STORE_URL", postgres_url)
