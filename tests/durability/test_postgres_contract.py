"""What the stores promise on SQLite they promise on PostgreSQL: tests of both services again, on a real server.

Those that touch SQL in every way that it is used; `test_postgres_contract_whole.py` has them all. The tests are those
of the services' own folders. Here the variable of the service names an empty store.
"""

from __future__ import annotations

import pytest

from tests.ranking_service.test_events_recorded import (  # noqa: F401
    test_an_event_shows_in_the_next_read_and_in_every_statistic,
    test_many_writers_at_once_lose_nothing_and_share_one_sequence,
    test_retrieval_is_asked_about_unknown_catalogues_only,
    test_the_same_event_again_is_counted_and_not_recorded,
    test_the_same_id_with_other_content_refuses_the_whole_request,
)
from tests.ranking_service.test_rules_rpcs import (  # noqa: F401
    ranking,
    test_a_deleted_rule_is_gone,
    test_a_rule_is_kept_with_its_defaults_and_in_memory_at_once,
    test_pages_are_in_the_order_of_the_ids,
    test_rules_are_there_after_a_restart,
    test_there_are_no_more_than_allowed,
)
from tests.ranking_service.test_statistics_restart import (  # noqa: F401
    test_a_snapshot_of_before_an_erasure_is_replaced_at_start,
    test_the_log_is_read_in_pages_with_erasures_in_their_places,
)
from tests.ranking_service.test_users_rpcs import (  # noqa: F401
    test_a_revision_that_moved_on_refuses_the_whole_request,
    test_a_user_is_written_and_read_back,
    test_an_export_gives_everything_back_oldest_first,
    test_somebody_erased_who_comes_back_is_somebody_new,
)
from tests.retrieval_service.test_retrieval_rpcs import (  # noqa: F401
    retrieval,
    test_a_repeated_request_id_gets_the_first_answer,
    test_a_write_with_an_old_revision_is_aborted,
    test_an_attribute_keeps_the_type_of_its_first_value,
    test_an_import_acknowledges_in_order_and_survives_a_bad_batch,
    test_catalogues_are_apart_from_each_other,
    test_deleted_items_are_found_no_more,
    test_dropping_default_empties_it_and_its_sequence_goes_on,
    test_everything_is_there_again_after_a_restart,
    test_items_come_from_the_store_when_the_cache_is_small,
    test_no_revision_or_sequence_of_an_id_comes_twice,
)


@pytest.fixture(autouse=True)
def _on_postgresql(postgres_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZHIYIN_RANKING_STORE_URL", postgres_url)
    monkeypatch.setenv("ZHIYIN_RETRIEVAL_STORE_URL", postgres_url)
