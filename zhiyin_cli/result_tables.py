"""Lists and figures as tables for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb2

_SOURCE_PREFIX = "SOURCE_KIND_"


def source_name(kind: ranking_pb2.SourceKind.ValueType) -> str:
    """The short name of a source, such as `history`."""
    return ranking_pb2.SourceKind.Name(kind).removeprefix(_SOURCE_PREFIX).lower()


def recommendation_table(
    title: str,
    items: Sequence[ranking_pb2.RecommendedItem],
    new_ids: Collection[str] = (),
) -> Table:
    """One list: rank, title, score, sources with their ranks, reason. Items in `new_ids` are marked."""
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, expand=False)
    table.add_column("#", justify="right")
    table.add_column("title", overflow="fold", max_width=46)
    table.add_column("category", style="dim", overflow="fold", max_width=22)
    table.add_column("score", justify="right")
    table.add_column("sources (rank)", style="dim", overflow="fold", max_width=34)
    table.add_column("reason", overflow="fold", max_width=44)
    for entry in items:
        is_new = entry.item.id in new_ids
        sources = ", ".join(f"{source_name(source.source)} {source.rank}" for source in entry.sources)
        cells = [Text(f"+ {entry.rank}" if is_new else str(entry.rank)), Text(entry.item.title or entry.item.id)]
        cells.append(Text("/".join(entry.item.categories)))
        cells += [Text(f"{entry.score:.3f}"), Text(sources), Text(entry.reason.text)]
        table.add_row(*cells, style="bold green" if is_new else None)
    return table


def degraded_lines(degraded: Sequence[ranking_pb2.Degradation]) -> list[str]:
    """What a list had to do without, one line each."""
    return [f"without {part.component} ({part.reason}): {part.message}" for part in degraded]


def figures_table(title: str, figures: dict[str, str]) -> Table:
    """Names and values."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, show_header=False)
    for name, value in figures.items():
        table.add_row(name, value)
    return table
