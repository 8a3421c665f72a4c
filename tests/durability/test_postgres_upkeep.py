"""`zhiyin backup`, `restore` and `check` with PostgreSQL: how a deployment moves from files to a server and back."""

from __future__ import annotations

from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from ranking_service.users.store.store import UserStore, add_catalog
from retrieval_service.item_store import ItemStore
from service_runtime.errors import FailedPrecondition
from service_runtime.sql import writing
from tests.postgres_cluster import Cluster
from tests.ranking_service.user_side_harness import event, opened
from tests.retrieval_service.retrieval_harness import Retrieval, item, running_retrieval
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin_offline.upkeep.backup import write_backup
from zhiyin_offline.upkeep.check import check_ranking, check_retrieval
from zhiyin_offline.upkeep.findings import Report
from zhiyin_offline.upkeep.locations import Locations
from zhiyin_offline.upkeep.restore import restore_backup

HALF_LIFE_S = 30 * 86_400.0


async def names(retrieval: Retrieval, catalog: str = "default") -> list[str]:
    page = await retrieval.stub.ListItems(pb.ListItemsRequest(catalog=catalog, page_size=100), timeout=20)
    return [found.id for found in page.items]


def assert_healthy(locations: Locations) -> None:
    report = Report()
    check_retrieval(locations, report, repair=False)
    check_ranking(locations, report, HALF_LIFE_S, repair=False)
    assert report.healthy, report.findings
    assert report.proved


def test_of_two_deployments_in_one_database_each_keeps_its_own(postgres_cluster: Cluster, tmp_path: Path) -> None:
    with ExitStack() as stack:
        urls = [stack.enter_context(postgres_cluster.store()) for _ in range(4)]
        one, two = Locations(tmp_path / "one", *urls[:2]), Locations(tmp_path / "two", *urls[2:])
        for number, locations in enumerate((one, two)):
            with closing(UserStore(locations.users)) as users, closing(ItemStore(locations.items)) as items:
                users.open()
                items.create_tables()
                with writing(users.engine) as connection:
                    for i in range(3 + number):
                        add_catalog(connection, f"films {number} {i}")
                with writing(items.engine) as connection:
                    items.create_catalog(connection, f"films {number}", "")
        write_backup(one, tmp_path / "backup", with_models=False)
        restore_backup(tmp_path / "backup", one, replace=True)
        with closing(UserStore(one.users)) as users, closing(UserStore(two.users)) as others:
            users.open()
            assert len(users.catalogs()) == 4
            with writing(users.engine) as connection:
                assert add_catalog(connection, "new").catalog_key == 5
            assert len(others.catalogs()) == 5


async def test_from_files_to_a_server_and_back(postgres_cluster: Cluster, tmp_path: Path) -> None:
    files = Locations(tmp_path / "files")
    async with running_retrieval(files.retrieval) as retrieval, opened(files.ranking) as users:
        await retrieval.stub.CreateCatalog(pb.CreateCatalogRequest(catalog=pb.Catalog(name="gone")))
        await retrieval.stub.DropCatalog(pb.DropCatalogRequest(catalog="gone"))
        await retrieval.upsert(item("b", "red film"), item("中文", "绿色 旅游"), item("A", "blue song"))
        await users.record(event("安", "LIKE", "b"), event("eve", "LIKE", "b"), event("ann", "LIKE", "A"))
        await users.upsert(ranking.User(id="安", profile="电影", follows=["ann"]))
        await users.delete("eve")
    write_backup(files, tmp_path / "first", with_models=False)

    with postgres_cluster.store() as item_url, postgres_cluster.store() as user_url:
        server = Locations(tmp_path / "server", item_url, user_url)
        restore_backup(tmp_path / "first", server)
        async with (
            running_retrieval(server.retrieval, store_url=item_url) as retrieval,
            opened(server.ranking, store_url=user_url) as users,
        ):
            assert await names(retrieval) == ["A", "b", "中文"]
            assert await retrieval.search_text("绿色 旅游", limit=1) == ["中文"]
            assert (await users.user("安")).profile == "电影"
            # No number is given out twice: not of a catalogue, an item, a user or an event.
            await retrieval.stub.CreateCatalog(pb.CreateCatalogRequest(catalog=pb.Catalog(name="new")))
            await retrieval.upsert(item("in new"), catalog="new")
            await retrieval.upsert(item("c", "amber shoe"))
            await users.record(event("新", "LIKE", "c"))
            assert await names(retrieval) == ["A", "b", "c", "中文"]
            # Beside the services: a look, and a copy. Not: a restore over them.
            assert_healthy(server)
            write_backup(server, tmp_path / "second", with_models=False)
            with pytest.raises(FailedPrecondition):
                restore_backup(tmp_path / "first", server, replace=True)
            with pytest.raises(FailedPrecondition, match="another service writes"):
                restore_backup(tmp_path / "first", Locations(tmp_path / "other", item_url, user_url), replace=True)
        assert_healthy(server)

    back = Locations(tmp_path / "back")
    restore_backup(tmp_path / "second", back)
    async with running_retrieval(back.retrieval) as retrieval, opened(back.ranking) as users:
        assert await names(retrieval) == ["A", "b", "c", "中文"]
        assert await names(retrieval, "new") == ["in new"]
        assert (await users.user("新")).event_count == 1
        await users.record(event("安", "LIKE", "c"))
        popular = dict(users.side.statistics.popular("default", 4e9, 9))
        assert popular.keys() == {"A", "b", "c"}
    assert_healthy(back)
