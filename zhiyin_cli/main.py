"""The `zhiyin` command."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from zhiyin_cli.bundles_commands import bundles_app
from zhiyin_cli.connection import Tls
from zhiyin_cli.datasets_commands import datasets_app
from zhiyin_cli.demo_command import demo
from zhiyin_cli.doctor_command import doctor
from zhiyin_cli.evaluate_command import evaluate
from zhiyin_cli.explain_command import explain
from zhiyin_cli.import_commands import events_app, items_app, users_app
from zhiyin_cli.model_commands import model_app
from zhiyin_cli.recommend_commands import recommend, similar, stats
from zhiyin_cli.rules_commands import rules_app
from zhiyin_cli.train_command import train
from zhiyin_cli.up_command import up
from zhiyin_cli.upkeep_commands import backup, check, restore

app = typer.Typer(
    name="zhiyin",
    help="Zhiyin (知音): a self-hosted, real-time recommender that other backends call over gRPC.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)


@app.callback()
def connection(
    ctx: typer.Context,
    tls_ca_file: Annotated[
        Path | None,
        typer.Option(
            envvar="ZHIYIN_TLS_CA_FILE",
            exists=True,
            dir_okay=False,
            help="PEM certificates of who signed the servers': use TLS.",
        ),
    ] = None,
    tls_cert_file: Annotated[
        Path | None,
        typer.Option(
            envvar="ZHIYIN_TLS_CERT_FILE", exists=True, dir_okay=False, help="PEM certificate of this client, for mTLS."
        ),
    ] = None,
    tls_key_file: Annotated[
        Path | None,
        typer.Option(
            envvar="ZHIYIN_TLS_KEY_FILE", exists=True, dir_okay=False, help="PEM private key of this client, for mTLS."
        ),
    ] = None,
) -> None:
    """Zhiyin (知音): a self-hosted, real-time recommender that other backends call over gRPC."""
    if (tls_cert_file is None) != (tls_key_file is None):
        raise typer.BadParameter("--tls-cert-file and --tls-key-file go together")
    if tls_cert_file is not None and tls_ca_file is None:
        raise typer.BadParameter("--tls-cert-file needs --tls-ca-file: without it the connection would be plaintext")
    ctx.obj = Tls(tls_ca_file, tls_cert_file, tls_key_file)


app.command()(up)
app.command()(demo)
app.command()(recommend)
app.command()(similar)
app.command()(explain)
app.command()(stats)
app.command()(evaluate)
app.command()(train)
app.command()(check)
app.command()(doctor)
app.command()(backup)
app.command()(restore)
app.add_typer(items_app, name="items")
app.add_typer(users_app, name="users")
app.add_typer(events_app, name="events")
app.add_typer(bundles_app, name="bundles")
app.add_typer(rules_app, name="rules")
app.add_typer(model_app, name="model")
app.add_typer(datasets_app, name="datasets")
