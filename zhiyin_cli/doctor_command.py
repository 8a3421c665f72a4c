"""`zhiyin doctor`: what is wrong with a deployment, and what to do."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.text import Text

from zhiyin_cli import options
from zhiyin_cli.connection import DEFAULT_ENCODER, DEFAULT_RANKING, DEFAULT_RETRIEVAL, Tls
from zhiyin_cli.terminal import out

_STYLES = {"ok": "green", "note": "yellow", "problem": "red"}
_Config = Annotated[Path | None, typer.Option(metavar="FILE", help="The file that service gets by --config.")]


def doctor(
    ctx: typer.Context,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            "--data-dir", help="The folder given to `zhiyin up`; without it the services' settings say where."
        ),
    ] = None,
    encoder_config: _Config = None,
    retrieval_config: _Config = None,
    ranking_config: _Config = None,
    encoder_address: options.EncoderAddress = DEFAULT_ENCODER,
    retrieval_address: options.RetrievalAddress = DEFAULT_RETRIEVAL,
    ranking_address: options.RankingAddress = DEFAULT_RANKING,
    as_json: Annotated[bool, typer.Option("--json", help="Print every finding as JSON.")] = False,
) -> None:
    """Look at settings, TLS files, model, stores, index, ports, versions and clocks, and say what to do.

    Changes nothing, and may run before the services are started, or beside them. Exit code 1: something is wrong.
    """
    # The libraries of the services are imported here: all other commands start without them.
    from zhiyin_offline.doctor.examine import examine
    from zhiyin_offline.doctor.patient import ClientTls, examine_settings

    tls: Tls = ctx.obj
    patient = examine_settings(
        data_dir,
        {"encoder": encoder_config, "retrieval": retrieval_config, "ranking": ranking_config},
        {"encoder": encoder_address, "retrieval": retrieval_address, "ranking": ranking_address},
        os.environ,
        frozenset(_variables(ctx.find_root().command)),
        ClientTls(tls.ca_file, tls.cert_file, tls.key_file),
    )
    found = []
    for each in examine(patient):
        found.append(each)
        if not as_json:
            out.print(
                Text(f"{each.status:8}", _STYLES[each.status]),
                Text(f"{each.subject:9} {each.what}"),
                sep="",
                soft_wrap=True,
            )
            if each.advice:
                out.print(Text(f"{'':17} -> {each.advice}"), soft_wrap=True)
    problems = sum(each.status == "problem" for each in found)
    if as_json:
        out.print_json(json.dumps({"problems": problems, "findings": [dataclasses.asdict(each) for each in found]}))
    else:
        out.print(f"{problems} problems" if problems != 1 else "1 problem")
    if problems:
        raise typer.Exit(1)


def _variables(command: Any) -> set[str]:
    """The variables that options of this program read."""
    found: set[str] = set()
    for parameter in command.params:
        names: Any = parameter.envvar or ()
        found.update([names] if isinstance(names, str) else names)
    for child in getattr(command, "commands", {}).values():
        found |= _variables(child)
    return found
