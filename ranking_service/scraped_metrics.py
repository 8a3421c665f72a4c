"""What Prometheus is told of the event log of every catalogue, read when it asks."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ranking_service.users.user_side import UserSide
from service_runtime.scraped_gauges import GaugeSpec, Reading, ScrapedGauges, free_bytes

_CATALOG = ("catalog",)

FREE = GaugeSpec("zhiyin_ranking_data_free_bytes", "Room left on the disk of the data folder.")
HEAD = GaugeSpec("zhiyin_ranking_log_sequence", "Last entry of the log of a catalogue in the store.", _CATALOG)
FOLDED = GaugeSpec("zhiyin_ranking_folded_sequence", "Last entry of it that this replica's lists know of.", _CATALOG)
GAUGES = (FREE, HEAD, FOLDED)


def ranking_gauges(users: UserSide, data_dir: Path) -> ScrapedGauges:
    """Everything above, of one running service."""

    def of_disk() -> Iterator[Reading]:
        yield FREE, (), free_bytes(data_dir)

    def of_logs() -> Iterator[Reading]:
        for catalog, (head, folded) in users.log_progress().items():
            yield HEAD, (catalog,), head
            yield FOLDED, (catalog,), folded

    return ScrapedGauges(GAUGES, of_disk, of_logs)
