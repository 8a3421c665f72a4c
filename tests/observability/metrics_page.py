"""docs/metrics.md as data."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs/metrics.md"
_SECTIONS = {
    "Of every service": ("encoder", "retrieval", "ranking"),
    "Of every process": ("encoder", "retrieval", "ranking"),
    "Encoder": ("encoder",),
    "Retrieval": ("retrieval",),
    "Ranking": ("ranking",),
}
_ROW = re.compile(r"^\| `(\w+)` \| (\w+) \|([^|]*)\|", re.MULTILINE)


@dataclass(frozen=True)
class Listed:
    """One row of the page."""

    services: tuple[str, ...]
    name: str
    kind: str
    labels: frozenset[str]


def listed_metrics() -> list[Listed]:
    found = []
    for section in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE):
        services = _SECTIONS.get(section.splitlines()[0], ())
        for name, kind, labels in _ROW.findall(section) if services else ():
            found.append(Listed(services, name, kind, frozenset(re.findall(r"`(\w+)`", labels))))
    return found
