"""Gauges that are read when they are scraped."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client import REGISTRY, generate_latest

from service_runtime.errors import StoreUnavailable
from service_runtime.scraped_gauges import GaugeSpec, Reading, ScrapedGauges, free_bytes

_SIZE = GaugeSpec("test_scraped_size", "Size.", ("catalog",))
_LAST = GaugeSpec("test_scraped_last", "Last.", ("catalog",))


def _scrape() -> list[str]:
    return [line for line in generate_latest(REGISTRY).decode().splitlines() if line.startswith("test_scraped")]


def test_what_is_gone_is_gone_from_the_next_scrape() -> None:
    sizes = {"films": 3.0, 'q"uote': 4.0}
    gauges = ScrapedGauges((_SIZE,), lambda: [(_SIZE, (name,), size) for name, size in sizes.items()])
    gauges.open()
    try:
        assert _scrape() == ['test_scraped_size{catalog="films"} 3.0', 'test_scraped_size{catalog="q\\"uote"} 4.0']
        del sizes["films"]
        assert _scrape() == ['test_scraped_size{catalog="q\\"uote"} 4.0']
    finally:
        gauges.close()
    assert _scrape() == []
    gauges.close()


@pytest.mark.parametrize("refusal", [StoreUnavailable("away"), OSError("away"), KeyError("unforeseen")])
def test_a_store_that_is_away_costs_its_own_figures_only(refusal: Exception) -> None:
    def of_store() -> Iterator[Reading]:
        yield _SIZE, ("films",), 3.0
        raise refusal

    gauges = ScrapedGauges((_SIZE, _LAST), of_store, lambda: [(_LAST, ("films",), 9.0)])
    gauges.open()
    try:
        assert _scrape() == ['test_scraped_size{catalog="films"} 3.0', 'test_scraped_last{catalog="films"} 9.0']
    finally:
        gauges.close()


def test_free_room_is_of_the_disk_of_the_folder(tmp_path: Path) -> None:
    assert free_bytes(tmp_path) > 1 << 20
    with pytest.raises(FileNotFoundError):
        free_bytes(tmp_path / "none")
