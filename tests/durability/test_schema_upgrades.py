"""The first schema, with rows in it, becomes the newest and loses nothing; anything else is refused with advice."""

from __future__ import annotations

import contextlib
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory

from ranking_service.users.store import schema as users_schema
from ranking_service.users.store.store import UserStore
from retrieval_service import store_schema as items_schema
from retrieval_service.item_store import ItemStore
from service_runtime import migrations
from service_runtime.errors import FailedPrecondition
from service_runtime.migrations import StoreSchema
from service_runtime.sql import open_engine, reading, sqlite_url, writing
from tests.ranking_service.user_side_harness import event, opened, recount
from tests.retrieval_service.retrieval_harness import item, running_retrieval

FIRST = Path(__file__).parent / "first_schemas"


def open_items(url: str) -> None:
    store = ItemStore(url)
    with contextlib.closing(store):
        store.create_tables()


def open_users(url: str) -> None:
    store = UserStore(url)
    with contextlib.closing(store):
        store.open()


STORES: dict[str, tuple[StoreSchema, sa.MetaData, Callable[[str], None]]] = {
    "items": (items_schema.SCHEMA, items_schema.metadata, open_items),
    "users": (users_schema.SCHEMA, users_schema.metadata, open_users),
}


def first_database(name: str, path: Path) -> None:
    """A database as the release before Alembic left it: its own statements, its own rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    connection.executescript((FIRST / f"{name}.sql").read_text(encoding="utf-8"))
    connection.close()


def dump(path: Path) -> str:
    """Everything in a database, as statements."""
    with contextlib.closing(sqlite3.connect(path)) as connection:
        return "\n".join(connection.iterdump())


def url_of(store_url: str, path: Path) -> str:
    return store_url or sqlite_url(path)


@pytest.mark.parametrize("name", STORES)
def test_the_revisions_make_what_the_tables_say(name: str, store_url: str, tmp_path: Path) -> None:
    schema, metadata, make = STORES[name]
    url = url_of(store_url, tmp_path / "store.sqlite3")
    make(url)
    engine = open_engine(url)
    with reading(engine) as connection:
        assert migrations.stored_revision(connection) == schema.head
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, metadata) == []
        if connection.dialect.name == "postgresql":
            query = (
                "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = current_schema() "
                "AND data_type = 'text' AND collation_name IS DISTINCT FROM 'C'"
            )
            assert connection.exec_driver_sql(query).all() == []
    engine.dispose()


@pytest.mark.parametrize("name", STORES)
def test_the_named_revisions_are_those_of_the_folder(name: str) -> None:
    schema, _, _ = STORES[name]
    scripts = ScriptDirectory(str(schema.folder), version_locations=[str(schema.folder)])
    assert [script.revision for script in scripts.walk_revisions()] == list(reversed(schema.revisions))


@pytest.mark.parametrize("name", STORES)
def test_the_first_schema_is_the_first_revision(name: str, tmp_path: Path) -> None:
    """Table by table: what the frozen statements make is what the first revision makes."""
    schema, _, _ = STORES[name]
    first_database(name, tmp_path / "frozen.sqlite3")
    alone = StoreSchema(schema.name, schema.folder, schema.revisions[:1], schema.first_tables)
    engine = open_engine(sqlite_url(tmp_path / "made.sqlite3"))
    with writing(engine) as connection:
        migrations.upgrade(connection, alone)
    engine.dispose()

    def shape(path: Path) -> dict[str, list[tuple[object, ...]]]:
        connection = sqlite3.connect(path)
        names = [row[0] for row in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        words = {
            row[0]: ("AUTOINCREMENT" in row[1], "WITHOUT ROWID" in row[1])
            for row in connection.execute("SELECT name, sql FROM sqlite_master WHERE type = 'table' AND sql NOT NULL")
        }
        found = {
            table: [
                words[table],
                *connection.execute(f"PRAGMA table_info({table})"),
                *sorted(connection.execute(f"PRAGMA foreign_key_list({table})")),
                *sorted(
                    (row[2], *connection.execute(f"PRAGMA index_info({row[1]})").fetchall())
                    for row in connection.execute(f"PRAGMA index_list({table})")
                ),
            ]
            for table in names
            if table not in ("alembic_version", "sqlite_sequence")
        }
        connection.close()
        return found

    assert shape(tmp_path / "made.sqlite3") == shape(tmp_path / "frozen.sqlite3")


async def test_items_of_the_first_schema_are_served(tmp_path: Path) -> None:
    first_database("items", tmp_path / "items.sqlite3")
    async with running_retrieval(tmp_path) as retrieval:
        stats = await retrieval.stats()
        assert (stats.item_count, stats.indexed_count, stats.sequence) == (4, 4, 3)
        assert await retrieval.search_text("绿色 旅游", limit=1) == ["中文"]
        assert await retrieval.search_text("violet film", limit=1) == ["b-2"]
        assert await retrieval.search_text("black news", catalog="films", limit=1) == ["only"]
        # A retry of a write of before is known, a new write goes on in sequence, a dropped name keeps its numbers.
        written = await retrieval.upsert(item("new", "amber course"))
        assert written.sequence == 4
        assert await retrieval.search_text("amber course", limit=1) == ["new"]
    async with running_retrieval(tmp_path) as retrieval:
        assert (await retrieval.stats()).item_count == 5


async def test_users_of_the_first_schema_are_served(tmp_path: Path) -> None:
    first_database("users", tmp_path / "users.sqlite3")
    async with opened(tmp_path) as ranking:
        user = await ranking.user("安")
        assert (user.profile, list(user.follows), user.event_count) == ("喜欢看电影", ["bob", "ann"], 1)
        assert user.attributes["city"].string_value == "成都"
        parts = [found.text for part in await ranking.export("ann") for found in part.events.events]
        assert "爵士 jazz" in parts
        again = await ranking.record(event("ann", "LIKE", "a", 1.7e9, event_id="e1"))
        assert (again.recorded_count, again.duplicate_count) == (0, 1)
        assert (await ranking.record(event("ann", "LIKE", "b"))).sequence == 8
        popular = [name for name, _ in ranking.side.statistics.popular("default", 1.7e9, 9)]
        assert popular == [name for name, _ in recount(tmp_path).popular(1.7e9, 9)]


@pytest.mark.parametrize("name", STORES)
def test_a_crash_in_the_middle_leaves_the_first_schema(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    schema, _, make = STORES[name]
    path = tmp_path / "store.sqlite3"
    first_database(name, path)
    before = dump(path)
    with monkeypatch.context() as patch:
        run = migrations._run_alembic

        def crash(*arguments: object) -> None:
            run(*arguments)  # type: ignore[arg-type]
            raise KeyboardInterrupt

        patch.setattr(migrations, "_run_alembic", crash)
        with pytest.raises(KeyboardInterrupt):
            make(sqlite_url(path))
    assert dump(path) == before
    make(sqlite_url(path))
    assert f"INSERT INTO \"alembic_version\" VALUES('{schema.head}');" in dump(path)


@pytest.mark.parametrize("name", STORES)
def test_a_newer_schema_is_refused_with_advice(name: str, store_url: str, tmp_path: Path) -> None:
    _, _, make = STORES[name]
    url = url_of(store_url, tmp_path / "store.sqlite3")
    make(url)
    engine = open_engine(url)
    with writing(engine) as connection:
        connection.exec_driver_sql(f"UPDATE alembic_version SET version_num = '{name}_0099'")
    engine.dispose()
    with pytest.raises(FailedPrecondition, match=f"{name}_0099.*newer release.*backup") as refusal:
        make(url)
    assert refusal.value.reason == "SCHEMA_VERSION_MISMATCH"


def test_two_services_cannot_share_a_database(store_url: str, tmp_path: Path) -> None:
    url = url_of(store_url, tmp_path / "store.sqlite3")
    STORES["users"][2](url)
    with pytest.raises(FailedPrecondition, match=r"another service's.*database of its own"):
        STORES["items"][2](url)


def test_tables_of_somebody_else_are_left_alone(store_url: str, tmp_path: Path) -> None:
    url = url_of(store_url, tmp_path / "store.sqlite3")
    engine = open_engine(url)
    with writing(engine) as connection:
        connection.exec_driver_sql("CREATE TABLE catalogs (isbn INTEGER)")
    with pytest.raises(FailedPrecondition, match="tables of something else"):
        STORES["users"][2](url)
    with reading(engine) as connection:
        assert sa.inspect(connection).get_table_names() == ["catalogs"]
    engine.dispose()


def test_the_release_before_refuses_what_this_one_has_upgraded(tmp_path: Path) -> None:
    """It knows no Alembic; it compares this number with its own, which is 1."""
    first_database("users", tmp_path / "store.sqlite3")
    STORES["users"][2](sqlite_url(tmp_path / "store.sqlite3"))
    assert "INSERT INTO \"store_facts\" VALUES('schema_version','2');" in dump(tmp_path / "store.sqlite3")


def test_of_many_that_start_at_once_one_migrates(store_url: str, tmp_path: Path) -> None:
    url = url_of(store_url, tmp_path / "store.sqlite3")
    stores = [UserStore(url) for _ in range(4)]
    failures: list[BaseException] = []

    def start(store: UserStore) -> None:
        try:
            store.open()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=start, args=(store,)) for store in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert len({store.epoch for store in stores}) == 1
    for store in stores:
        store.close()


@pytest.mark.parametrize("name", STORES)
def test_a_start_with_nothing_to_do_imports_no_alembic(name: str, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path / "store.sqlite3")
    STORES[name][2](url)
    module, make = {
        "items": ("retrieval_service.item_store", f"ItemStore({url!r}).create_tables()"),
        "users": ("ranking_service.users.store.store", f"UserStore({url!r}).open()"),
    }[name]
    code = f"import sys; from {module} import *; {make}; assert 'alembic' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
