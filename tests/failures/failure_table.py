"""The observed outcomes as the tables of docs/failures.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.failures.outcomes import Outcome

DOCUMENT = Path(__file__).parents[2] / "docs" / "failures.md"
_BEGIN = "<!-- The tables below are written by tests/failures: see the end of the page. -->"
_END = "<!-- End of the tables. -->"
_HEALTHY = ("OK, at once", "a list, at once")


@dataclass(frozen=True)
class Section:
    """One dependency: outcomes by fault, then by call."""

    title: str
    rows: Mapping[str, Mapping[str, Outcome]]


def render(sections: Sequence[Section]) -> str:
    """Markdown."""
    return "\n".join(line for section in sections for line in _section(section))


def _section(section: Section) -> list[str]:
    calls = list(next(iter(section.rows.values())))
    touched = [call for call in calls if any(row[call].cell not in _HEALTHY for row in section.rows.values())]
    columns = _merged(section, touched)
    lines = [f"### {section.title}", ""]
    if untouched := [call for call in calls if call not in touched]:
        lines += ["As if nothing were wrong, at once, in every row: " + "; ".join(untouched) + ".", ""]
    heads = [" and ".join(names) if len(names) < 3 else "; ".join(names) for names in columns]
    lines += [f"| the fault | {' | '.join(heads)} |", "|---" * (len(columns) + 1) + "|"]
    for fault, row in section.rows.items():
        cells = [row[names[0]].cell for names in columns]
        lines.append(f"| {fault} | {' | '.join(cells)} |")
    return [*lines, ""]


def _merged(section: Section, calls: Sequence[str]) -> list[list[str]]:
    """Calls with the same outcomes throughout share a column."""
    columns: dict[tuple[str, ...], list[str]] = {}
    for call in calls:
        columns.setdefault(tuple(row[call].cell for row in section.rows.values()), []).append(call)
    return list(columns.values())


def committed() -> str:
    """The tables as the document has them."""
    text = DOCUMENT.read_text(encoding="utf-8")
    return text.split(_BEGIN, 1)[1].split(_END, 1)[0].strip() if _BEGIN in text else ""


def rewrite(tables: str) -> None:
    """Puts them into the document."""
    before, rest = DOCUMENT.read_text(encoding="utf-8").split(_BEGIN, 1)
    after = rest.split(_END, 1)[1]
    DOCUMENT.write_text(f"{before}{_BEGIN}\n\n{tables.strip()}\n\n{_END}{after}", encoding="utf-8")
