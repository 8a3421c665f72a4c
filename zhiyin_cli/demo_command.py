"""`zhiyin demo`: the whole of Zhiyin on this machine, from nothing to recommendations, and everything stopped again."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from zhiyin.ranking.v1 import ranking_service_pb2_grpc as ranking_grpc
from zhiyin_cli.connection import connect
from zhiyin_cli.demo.example_catalogue import find_catalogue, import_once
from zhiyin_cli.demo.scenes import CHINESE, ENGLISH, Demonstration
from zhiyin_cli.model_source import DEFAULT_MODEL, ENGLISH_ONLY, ready_model
from zhiyin_cli.process_group import ProcessGroup, ProcessGroupFailed
from zhiyin_cli.stack import StackPorts, stack_services
from zhiyin_cli.terminal import CommandFailed, out, readable_failures

_START_TIMEOUT_S = 180.0
_WIDTH_WITHOUT_TERMINAL = 150
_SUMMARY = (
    "What you saw: three services, each a process of its own, talking gRPC. The encoder turned every title and text "
    "into a vector with a BERT model; the retrieval service stored the items and indexed the vectors; the ranking "
    "service merged what the profile says, what the history says, what others did next, what is popular and what is "
    "new, made each list diverse, and gave a reason for every item. An event counted in the very next list. "
    "`zhiyin up` runs the same services for your own data."
)


def demo(
    data_dir: Annotated[
        Path, typer.Option("--data-dir", help="Folder for models, stores and logs, used again by the next run.")
    ] = Path(".demo"),
    model: Annotated[
        str,
        typer.Option(
            "--model",
            envvar="ZHIYIN_DEMO_MODEL",
            help="A model directory or a checkpoint. The default reads Chinese and English.",
        ),
    ] = DEFAULT_MODEL,
    catalogue: Annotated[
        Path | None, typer.Option("--catalogue", help="Folder of the example catalogue; found in a checkout.")
    ] = None,
) -> None:
    """Start everything on free ports, import the example catalogue, show recommendations, stop everything."""
    started_at = time.monotonic()
    console = out if out.is_terminal else Console(width=_WIDTH_WITHOUT_TERMINAL, highlight=False)
    with readable_failures():
        examples = find_catalogue(catalogue)
        model_dir = ready_model(model, data_dir / "models", lambda line: console.print(line, markup=False))
        # A store holds vectors of one model and events that must not change: each model and catalogue has its own.
        state_dir = data_dir / "stores" / f"{model_dir.name}-{examples.digest()[:8]}"
        ports = StackPorts.free()
        try:
            with ProcessGroup(stack_services(state_dir, model_dir, ports)) as group:
                group.wait_until_serving(_START_TIMEOUT_S)
                console.print(
                    f"three services are up: encoder {ports.encoder_address}, retrieval {ports.retrieval_address}, "
                    f"ranking {ports.ranking_address}; logs in {state_dir / 'logs'}"
                )
                if not import_once(examples, ports, state_dir):
                    console.print("the example catalogue is there from an earlier run")
                _show(console, ports, model)
        except ProcessGroupFailed as exc:
            raise CommandFailed(str(exc)) from exc
        console.print(f"All services are stopped. {time.monotonic() - started_at:.0f} s in all.")


def _show(console: Console, ports: StackPorts, model: str) -> None:
    both_languages = model not in ENGLISH_ONLY
    with connect(ports.ranking_address) as channel:
        stub = ranking_grpc.RankingServiceStub(channel)
        for cast in (ENGLISH, CHINESE) if both_languages else (ENGLISH,):
            demonstration = Demonstration(stub, console, cast)
            demonstration.known_users()
            demonstration.newcomer()
            demonstration.list_after_an_event()
            demonstration.diversity()
    console.rule()
    console.print(_SUMMARY)
    if not both_languages:
        console.print(
            f"{model} reads English only, so Chinese users were left out and Chinese items are matched poorly: "
            "without --model the demo shows both languages."
        )
