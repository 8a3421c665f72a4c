"""`zhiyin bundles`: what trainings learned, and which of it serves."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.table import Table

from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as pb_grpc
from zhiyin_cli import options
from zhiyin_cli.connection import DEFAULT_RANKING, connect
from zhiyin_cli.terminal import out, readable_failures

bundles_app = typer.Typer(help="Model bundles: what `zhiyin train` learned.", no_args_is_help=True)
_TIMEOUT_S = 30.0
_SHOWN = ("ndcg@10", "recall@10")


@bundles_app.command("list")
def list_bundles(
    ctx: typer.Context, catalog: options.Catalog = "default", address: options.RankingAddress = DEFAULT_RANKING
) -> None:
    """List the bundles of a catalogue, newest first."""
    table = Table("bundle", "trained", "ndcg@10", "recall@10", "serves")
    token = ""
    with readable_failures(address), connect(address, ctx.obj) as channel:
        stub = pb_grpc.RankingServiceStub(channel)
        while True:
            request = pb.ListBundlesRequest(catalog=catalog, page_token=token)
            reply = stub.ListBundles(request, timeout=_TIMEOUT_S)
            for bundle in reply.bundles:
                figures = [f"{bundle.metrics[name]:.4f}" if name in bundle.metrics else "-" for name in _SHOWN]
                trained_at = bundle.created_at.ToDatetime().strftime("%Y-%m-%d %H:%M:%S")
                table.add_row(bundle.id, trained_at, *figures, "yes" if bundle.active else "")
            token = reply.next_page_token
            if not token:
                break
    out.print(table)


@bundles_app.command("activate")
def activate_bundle(
    ctx: typer.Context,
    bundle: Annotated[str, typer.Argument(help="Id of the bundle; `builtin`: none.")],
    catalog: options.Catalog = "default",
    address: options.RankingAddress = DEFAULT_RANKING,
) -> None:
    """Let a bundle serve: a new one, or an older one again. `builtin` goes back to the weights of the house."""
    with readable_failures(address), connect(address, ctx.obj) as channel:
        request = pb.ActivateBundleRequest(catalog=catalog, bundle_id=bundle)
        pb_grpc.RankingServiceStub(channel).ActivateBundle(request, timeout=_TIMEOUT_S)
    out.print(f"{bundle} serves catalogue {catalog}", markup=False)
