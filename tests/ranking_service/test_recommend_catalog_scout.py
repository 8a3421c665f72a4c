"""What the scout knows of a catalogue: the newest items and an even sample, with few calls."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Sequence

import pytest

from ranking_service import catalog_scout
from ranking_service.catalog_scout import CatalogScout
from service_runtime.errors import DependencyUnavailable
from zhiyin.common.v1.filter_pb2 import Filter
from zhiyin.common.v1.item_pb2 import Item


class Shelf:
    """Items by id, in pages of `page`; counts calls."""

    def __init__(self, ages_s: Sequence[float], page: int = 1000) -> None:
        self.items, self.page, self.calls, self.down = [], page, 0, False
        for number, age in enumerate(ages_s):
            item = Item(id=f"{number:06d}", categories=[f"c{number % 7}"])
            item.created_at.FromNanoseconds(int((time.time() - age) * 1e9))
            self.items.append(item)

    async def list_items(
        self, catalog: str, condition: Filter | None, page_token: str, fields: Sequence[str]
    ) -> tuple[Sequence[Item], str]:
        self.calls += 1
        if self.down:
            raise DependencyUnavailable("retrieval", "down")
        since = getattr(condition.time_range, "from").seconds if condition is not None else 0
        found = [item for item in self.items if item.created_at.seconds >= since and item.id > page_token]
        page = found[: self.page]
        return page, page[-1].id if len(found) > len(page) else ""


async def settled(scout: CatalogScout) -> None:
    for _ in range(200):
        if all(known.refresh is None for known in scout._catalogs.values()):
            return
        await asyncio.sleep(0.005)


async def test_a_small_catalogue_costs_two_calls_and_is_known_whole() -> None:
    shelf = Shelf([(day + 0.5) * 86_400.0 for day in range(50)])
    scout = CatalogScout(shelf, refresh_s=60)
    assert await scout.look("default", 5)
    assert shelf.calls == 2
    assert [item.id for item in scout.newest("default")][:3] == ["000000", "000001", "000002"]
    assert len(scout.newest("default")) == 30
    assert len(scout.sample("default")) == 50
    assert await scout.look("default", 5)
    assert shelf.calls == 2
    await scout.close()


async def test_the_newest_of_many_new_items_are_found() -> None:
    shelf = Shelf([600.0 * number for number in range(4000, 0, -1)], page=300)
    scout = CatalogScout(shelf, refresh_s=60)
    assert await scout.look("default", 5)
    newest = [item.id for item in scout.newest("default")]
    assert newest[:100] == [f"{number:06d}" for number in range(3999, 3899, -1)]
    await scout.close()


async def test_the_sample_is_even(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog_scout, "_SAMPLE_SIZE", 400)
    shelf = Shelf([1e8] * 4000)
    scout = CatalogScout(shelf, refresh_s=60)
    assert await scout.look("default", 5)
    ids = [int(item.id) for item in scout.sample("default")]
    assert len(set(ids)) == 400
    thirds = Counter(number * 4 // 4000 for number in ids)
    assert min(thirds.values()) > 65
    await scout.close()


async def test_a_large_catalogue_is_walked_over_several_refreshes() -> None:
    shelf = Shelf([1e8] * 900, page=100)
    scout = CatalogScout(shelf, refresh_s=0)
    assert await scout.look("default", 5)
    assert len(scout.sample("default")) == 500
    await scout.look("default", 5)
    await settled(scout)
    assert len(scout.sample("default")) == 900
    await scout.close()


async def test_what_fails_is_tried_again_and_says_nothing_is_known() -> None:
    shelf = Shelf([0.0] * 3)
    shelf.down = True
    scout = CatalogScout(shelf, refresh_s=60)
    assert not await scout.look("default", 1)
    assert scout.sample("default") == []
    shelf.down = False
    assert await scout.look("default", 1)
    assert len(scout.sample("default")) == 3
    await scout.close()


async def test_catalogues_nobody_asks_for_are_forgotten() -> None:
    scout = CatalogScout(Shelf([0.0]), refresh_s=60, max_catalogs=2)
    for name in ("a", "b", "c"):
        assert await scout.look(name, 1)
    assert scout.sample("a") == []
    assert len(scout.sample("c")) == 1
    await scout.close()
