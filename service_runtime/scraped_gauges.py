"""Gauges of what comes and goes, such as catalogues: read when they are scraped, so that none of a dropped one stays.

A scrape comes in a thread of the metrics endpoint, so reading may block; the event loop knows nothing of it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import REGISTRY, Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from service_runtime.telemetry import get_logger

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class GaugeSpec:
    """A gauge: its name, what it says, and the names of its labels."""

    name: str
    documentation: str
    labels: Sequence[str] = ()


Reading = tuple[GaugeSpec, Sequence[str], float]
"""A gauge, the values of its labels, and its value."""


class ScrapedGauges(Collector):
    """Some gauges and how to read them.

    Args:
        specs: All gauges that `reads` may speak of; each is named in every scrape, with or without values.
        reads: What they are now, each of one store, process or disk. Of one that fails, what it said before is told,
            and the others and all other metrics are in the scrape anyway.
    """

    def __init__(self, specs: Sequence[GaugeSpec], *reads: Callable[[], Iterable[Reading]]) -> None:
        self._specs, self._reads = specs, reads
        self._open = False

    def describe(self) -> Iterable[Metric]:
        """Nothing: a registration must not read."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """For the registry."""
        families = {
            spec.name: GaugeMetricFamily(spec.name, spec.documentation, labels=spec.labels) for spec in self._specs
        }
        for read in self._reads:
            try:
                for spec, labels, value in read():
                    families[spec.name].add_metric(list(labels), value)
            except Exception as error:
                _log.warning("metrics_not_read", error=type(error).__name__)
        yield from families.values()

    def open(self) -> None:
        """From now on they are in every scrape."""
        REGISTRY.register(self)
        self._open = True

    def close(self) -> None:
        """And from now on in none; nothing happens where they were in none."""
        if self._open:
            REGISTRY.unregister(self)
            self._open = False


def free_bytes(folder: Path) -> float:
    """Room that is left on the disk of a folder.

    Raises:
        OSError: There is no such folder.
    """
    return float(shutil.disk_usage(folder).free)
