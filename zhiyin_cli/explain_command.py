"""`zhiyin explain`: why an item stood where it stood."""

from __future__ import annotations

from typing import Annotated

import typer
from google.protobuf import json_format
from rich import box
from rich.table import Table
from rich.text import Text

from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as pb_grpc
from zhiyin_cli import options
from zhiyin_cli.connection import DEFAULT_RANKING, connect
from zhiyin_cli.result_tables import degraded_lines, figures_table, recommendation_table, source_name
from zhiyin_cli.terminal import err, out, readable_failures

_BESIDE = (".contribution", ".evidence")
_MOVED_ON = {
    "bundle": "the bundle that served cannot be loaded any more",
    "spaces": "the vector spaces have other versions",
    "catalog": "items were written",
    "events": "events, users or rules were written",
    "degraded": "other parts were missing",
}


def explain(
    ctx: typer.Context,
    token: Annotated[str, typer.Argument(metavar="TOKEN", help="The attribution token of a recommended item.")],
    reproduce: Annotated[
        bool, typer.Option("--reproduce", help="Make the list anew and compare it with what was served.")
    ] = False,
    as_json: options.AsJson = False,
    catalog: options.Catalog = "default",
    address: options.RankingAddress = DEFAULT_RANKING,
    timeout: options.Timeout = 10.0,
) -> None:
    """Explain why an item stood where it stood in a list, and show that list."""
    with readable_failures(address), connect(address, ctx.obj) as channel:
        request = pb.ExplainRequest(catalog=catalog, attribution_token=token, reproduce=reproduce)
        response = pb_grpc.RankingServiceStub(channel).Explain(request, timeout=timeout)
    if as_json:
        out.print_json(json_format.MessageToJson(response, ensure_ascii=False))
        return
    _show(response)
    for line in degraded_lines(response.degraded):
        err.print(line, style="yellow", markup=False)


def _show(told: pb.ExplainResponse) -> None:
    entry = told.item
    out.print(figures_table(entry.item.title or entry.item.id, _figures(told)))
    out.print(_sources(told))
    beside = {n: v for n, v in sorted(told.features.items()) if not n.endswith(_BESIDE)}
    if beside:
        out.print(figures_table("Beside the sources", {name: f"{value:+.4f}" for name, value in beside.items()}))
    if told.dropped:
        out.print(_dropped(told))
    out.print(recommendation_table("The list as it was served", told.list, [entry.item.id], width=out.width))
    if told.HasField("reproduction"):
        made = told.reproduction
        same = "the same items in the same places" if made.identical else f"now: {', '.join(made.item_ids)}"
        out.print(Text(f"made anew: {same}"))
        for what in made.moved_on:
            out.print(Text(f"moved on since: {what} ({_MOVED_ON.get(what, 'unknown to this command')})"))


def _figures(told: pb.ExplainResponse) -> dict[str, str]:
    entry, versions = told.item, told.versions
    before = str(told.rank_before_diversity) if told.rank_before_diversity else "none of its own"
    figures = {
        "item": entry.item.id,
        "place": f"{entry.rank}, before diversity {before}",
        "score": f"{entry.score:.4f}",
        **({"probability": f"{entry.probability:.3f}"} if entry.HasField("probability") else {}),
        "reason": entry.reason.text,
        "propensity": f"{told.propensity:g}",
        "served": told.served_at.ToJsonString(),
        "made with": f"bundle {versions.bundle}, catalogue at {versions.catalog_sequence}, events at "
        f"{versions.event_sequence}, seed {told.seed}",
    }
    for rule in told.rules:
        action = pb.RuleAction.Name(rule.action).removeprefix("RULE_ACTION_").lower()
        figures[f"rule {rule.rule_id}"] = action + (f" {rule.score:+.4f}" if rule.score else "")
    if told.experiment_variant:
        figures["variant"] = told.experiment_variant
    for intent in told.intents:
        figures[f"intent {intent.label}"] = f"{intent.probability:.2f}"
    return figures


def _sources(told: pb.ExplainResponse) -> Table:
    """Every source with an opinion; those that proposed the item have a rank."""
    table = Table(title="Sources", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("source", "rank", "score", "evidence", "contribution"):
        table.add_column(name, justify="left" if name == "source" else "right")
    proposed = {source_name(source.source): source for source in told.item.sources}
    opinions = {name.rpartition(".")[0] for name in told.features if name.endswith(_BESIDE)}
    rows = sorted(proposed.keys() | opinions, key=lambda name: -told.features.get(f"{name}.contribution", 0.0))
    for name in rows:
        source = proposed.get(name)
        cells = [str(source.rank), f"{source.score:.4f}"] if source is not None else ["", ""]
        for part in ("evidence", "contribution"):
            value = told.features.get(f"{name}.{part}")
            cells.append("" if value is None else f"{value:.4f}")
        table.add_row(name, *cells)
    return table


def _dropped(told: pb.ExplainResponse) -> Table:
    table = Table(title="Items like it that were kept out", title_justify="left", box=box.SIMPLE_HEAD)
    for name in ("item", "by", "similarity"):
        table.add_column(name, justify="right" if name == "similarity" else "left")
    for one in told.dropped:
        table.add_row(Text(one.item_id), Text(one.filter), f"{one.similarity:.3f}")
    return table
