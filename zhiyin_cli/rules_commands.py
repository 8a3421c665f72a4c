"""`zhiyin rules`: what the people who run a catalogue want of every list."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer
from google.protobuf import json_format
from rich.table import Table

from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as pb_grpc
from zhiyin_cli import options
from zhiyin_cli.connection import DEFAULT_RANKING, connect
from zhiyin_cli.terminal import CommandFailed, out, readable_failures, refusal_text
from zhiyin_client.refusals import from_rpc_error

rules_app = typer.Typer(help="What every list has to keep to: boosts, pins, quotas, caps.", no_args_is_help=True)

_TIMEOUT_S = 10.0
# What is said of a rule in the list, in this order; a rule has some of them.
_OWN_FIELDS = (
    *("strength", "position", "max_places", "window", "per_field", "min_share", "max_impressions", "period"),
    *("similarity", "filter", "active_from", "active_until"),
)


@rules_app.command("put")
def put_rules(
    ctx: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="A rule or a list of them in JSON; `-`: standard input.")],
    catalog: options.Catalog = "default",
    address: options.RankingAddress = DEFAULT_RANKING,
) -> None:
    """Make or replace rules. All are checked first; when one is refused none is written."""
    with readable_failures(address), connect(address, ctx.obj) as channel:
        rules = _read(file)
        stub = pb_grpc.RankingServiceStub(channel)
        refused = []
        for place, rule in enumerate(rules, start=1):
            try:
                stub.PutRule(pb.PutRuleRequest(catalog=catalog, rule=rule, validate_only=True), timeout=_TIMEOUT_S)
            except grpc.RpcError as error:
                name = f"rule {rule.id!r}" if rule.id else f"rule number {place}"
                refused.append(f"{name}: {refusal_text(from_rpc_error(error), address)}")
        if refused:
            raise CommandFailed("\n".join([*refused, "nothing was written"]))
        for rule in rules:
            stub.PutRule(pb.PutRuleRequest(catalog=catalog, rule=rule), timeout=_TIMEOUT_S)
            out.print(f"{rule.id} holds in catalogue {catalog}", markup=False)


@rules_app.command("list")
def list_rules(
    ctx: typer.Context,
    as_json: options.AsJson = False,
    catalog: options.Catalog = "default",
    address: options.RankingAddress = DEFAULT_RANKING,
) -> None:
    """List the rules of a catalogue, in force or not."""
    with readable_failures(address), connect(address, ctx.obj) as channel:
        rules = pb.ListRulesResponse(rules=_all(pb_grpc.RankingServiceStub(channel), catalog))
    if as_json:
        typer.echo(json_format.MessageToJson(rules, ensure_ascii=False))
        return
    table = Table("rule", "action", "what", "note")
    for rule in rules.rules:
        action = pb.RuleAction.Name(rule.action).removeprefix("RULE_ACTION_").lower()
        table.add_row(rule.id, action, _words(rule), rule.note)
    out.print(table)


@rules_app.command("delete")
def delete_rule(
    ctx: typer.Context,
    rule_id: Annotated[str, typer.Argument(metavar="ID", help="Id of the rule.")],
    catalog: options.Catalog = "default",
    address: options.RankingAddress = DEFAULT_RANKING,
) -> None:
    """Delete a rule."""
    with readable_failures(address), connect(address, ctx.obj) as channel:
        request = pb.DeleteRuleRequest(catalog=catalog, rule_id=rule_id)
        if not pb_grpc.RankingServiceStub(channel).DeleteRule(request, timeout=_TIMEOUT_S).existed:
            raise CommandFailed(f"catalogue {catalog} has no rule {rule_id!r}")
    out.print(f"{rule_id} is gone from catalogue {catalog}", markup=False)


def _read(file: str) -> list[pb.Rule]:
    """The rules of a file: one, a list, or what `zhiyin rules list --json` prints."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
        found = json.loads(text)
    except (OSError, ValueError) as error:
        raise CommandFailed(f"{file} cannot be read as JSON: {error}") from error
    if isinstance(found, dict) and isinstance(found.get("rules"), list):
        found = found["rules"]
    entries: list[Any] = found if isinstance(found, list) else [found]
    rules = []
    for place, entry in enumerate(entries, start=1):
        try:
            rules.append(json_format.ParseDict(entry, pb.Rule()))
        except (json_format.ParseError, TypeError, AttributeError) as error:
            raise CommandFailed(f"{file}, rule number {place}: {error}") from error
    if not rules:
        raise CommandFailed(f"{file} has no rule")
    return rules


def _all(stub: pb_grpc.RankingServiceStub, catalog: str) -> Iterator[pb.Rule]:
    token = ""
    while True:
        reply = stub.ListRules(pb.ListRulesRequest(catalog=catalog, page_token=token), timeout=_TIMEOUT_S)
        yield from reply.rules
        token = reply.next_page_token
        if not token:
            return


def _words(rule: pb.Rule) -> str:
    fields = json_format.MessageToDict(rule, preserving_proto_field_name=True)
    said = []
    for name in _OWN_FIELDS:
        if name in fields:
            value = fields[name]
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            said.append(f"{name}={shown}")
    return " ".join(said)
