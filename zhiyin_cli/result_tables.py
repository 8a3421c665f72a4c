"""Lists and figures as tables for a terminal."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from rich import box
from rich.table import Table
from rich.text import Text

from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb2

_SOURCE_PREFIX = "SOURCE_KIND_"
_WIDE_FROM = 110  # columns
_SOURCES_WIDTH = 22


def source_name(kind: ranking_pb2.SourceKind.ValueType) -> str:
    """The short name of a source, such as `history`."""
    return ranking_pb2.SourceKind.Name(kind).removeprefix(_SOURCE_PREFIX).lower()


def recommendation_table(
    title: str,
    items: Sequence[ranking_pb2.RecommendedItem],
    new_ids: Collection[str] = (),
    *,
    width: int,
) -> Table:
    """One list: rank, title, category, score, sources with their ranks, reason. Items in `new_ids` are marked.

    `width` is what there is, in columns. Where it is little, category and reason stand below the title.
    """
    narrow = width < _WIDE_FROM
    table = Table(title=Text(title), title_justify="left", box=box.SIMPLE_HEAD, expand=False)
    table.add_column("#", justify="right")
    table.add_column("title, category, reason" if narrow else "title", overflow="fold", max_width=46)
    if not narrow:
        table.add_column("category", style="dim", overflow="fold", max_width=22)
    table.add_column("score", justify="right")
    table.add_column("sources (rank)", style="dim", no_wrap=True)
    if not narrow:
        table.add_column("reason", overflow="fold", max_width=44)
    for entry in items:
        is_new = entry.item.id in new_ids
        number = Text(f"+ {entry.rank}" if is_new else str(entry.rank))
        name = Text(entry.item.title or entry.item.id)
        category = Text("/".join(entry.item.categories))
        score = Text(f"{entry.score:.3f}")
        sources = _sources(entry)
        reason = Text(entry.reason.text)
        if narrow:
            below = [part for part in (category, reason) if part]
            for part in below:
                part.stylize("dim")
            cells = [number, Text("\n").join([name, *below]), score, sources]
        else:
            cells = [number, name, category, score, sources, reason]
        table.add_row(*cells, style="bold green" if is_new else None)
    return table


def _sources(entry: ranking_pb2.RecommendedItem) -> Text:
    """Sources with their ranks, broken into lines between them and never inside of one."""
    lines: list[str] = []
    for source in entry.sources:
        word = f"{source_name(source.source)} {source.rank}"
        if lines and len(lines[-1]) + len(word) + 2 <= _SOURCES_WIDTH:
            lines[-1] += f", {word}"
        else:
            lines.append(word)
    return Text(",\n".join(lines))


def degraded_lines(degraded: Sequence[ranking_pb2.Degradation]) -> list[str]:
    """What a list had to do without, one line each."""
    return [f"without {part.component} ({part.reason}): {part.message}" for part in degraded]


def figures_table(title: str, figures: dict[str, str]) -> Table:
    """Names and values."""
    table = Table(title=title, title_justify="left", box=box.SIMPLE, show_header=False)
    for name, value in figures.items():
        table.add_row(name, value)
    return table
