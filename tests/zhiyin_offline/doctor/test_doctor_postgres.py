"""`zhiyin doctor` with the user store in a real PostgreSQL."""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa

from ranking_service.users.store.store import UserStore
from tests.zhiyin_offline.doctor.conftest import notes, only, patient, problems
from zhiyin_offline.doctor.clocks import check_clocks
from zhiyin_offline.doctor.settings import check_settings
from zhiyin_offline.doctor.stores import check_stores


def test_a_store_in_postgresql(postgres_url: str, tmp_path: Path) -> None:
    (tmp_path / "ranking").mkdir()
    sick = patient(tmp_path, ZHIYIN_RANKING_STORE_URL=postgres_url)
    assert problems(check_stores(sick)) == []
    assert "ranking: the user store is empty" in notes(list(check_stores(sick)))
    store = UserStore(postgres_url)
    store.open()
    store.close()
    assert problems(check_stores(sick)) == []
    assert [each.what for each in check_clocks(sick)] == ["the clock of the database of ranking agrees with this one"]
    assert any("a token key of its own" in each for each in notes(list(check_settings(sick))))
    engine = sa.create_engine(postgres_url)
    with engine.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = 'users_9999'"))
    engine.dispose()
    assert "has schema users_9999" in only(problems(check_stores(sick)))


def test_a_database_server_that_is_away(tmp_path: Path) -> None:
    (tmp_path / "ranking").mkdir()
    url = "postgresql+psycopg://nobody:secret@127.0.0.1:1/users"
    found = only(problems(check_stores(patient(tmp_path, ZHIYIN_RANKING_STORE_URL=url))))
    assert "ranking" in found
    assert "secret" not in found
