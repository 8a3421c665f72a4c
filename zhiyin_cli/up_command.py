"""`zhiyin up`: the three services on this machine, until Ctrl-C."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from types import FrameType
from typing import Annotated

import typer

from zhiyin_cli.model_source import DEFAULT_MODEL, ready_model
from zhiyin_cli.process_group import ProcessGroup, ProcessGroupFailed
from zhiyin_cli.stack import StackPorts, stack_services
from zhiyin_cli.terminal import CommandFailed, err, readable_failures

_POLL_S = 0.2
_Port = Annotated[int, typer.Option(min=1, max=65535)]
_MetricsPort = Annotated[int, typer.Option(min=0, max=65535, help="Prometheus endpoint; 0: none.")]


class StopSignals:
    """Counts SIGINT and SIGTERM instead of dying of them: the first asks to stop, the second to hurry."""

    def __init__(self) -> None:
        self.count = 0
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._received)

    def asked_to_stop(self) -> bool:
        """Whether a signal came."""
        return self.count > 0

    def asked_to_hurry(self) -> bool:
        """Whether a second one came."""
        return self.count > 1

    def _received(self, number: int, frame: FrameType | None) -> None:
        self.count += 1


def up(
    data_dir: Annotated[
        Path,
        typer.Option("--data-dir", help="Folder for everything the services keep, their logs and exported models."),
    ],
    model: Annotated[
        str,
        typer.Option("--model", help="A model directory, or a checkpoint (folder, package, hub id) to export first."),
    ] = DEFAULT_MODEL,
    intents: Annotated[
        Path | None,
        typer.Option("--intents", metavar="FILE", help="YAML of what users may be up to (docs/intents.md)."),
    ] = None,
    infer: Annotated[
        Path | None,
        typer.Option("--infer", metavar="FILE", help="YAML of attributes to infer from items (docs/intents.md)."),
    ] = None,
    encoder_port: _Port = StackPorts.encoder,
    retrieval_port: _Port = StackPorts.retrieval,
    ranking_port: _Port = StackPorts.ranking,
    encoder_metrics_port: _MetricsPort = 9051,
    retrieval_metrics_port: _MetricsPort = 9052,
    ranking_metrics_port: _MetricsPort = 9053,
    start_timeout: Annotated[
        float, typer.Option("--start-timeout", min=1, help="Seconds until all must be ready.")
    ] = 180.0,
) -> None:
    """Run the encoder, retrieval and ranking services on loopback until Ctrl-C.

    Prints one line starting with `ready` and the three addresses once all answer.
    """
    with readable_failures():
        signals = StopSignals()
        model_dir = ready_model(model, data_dir / "models", lambda message: err.print(message, markup=False))
        ports = StackPorts(
            encoder_port,
            retrieval_port,
            ranking_port,
            encoder_metrics_port,
            retrieval_metrics_port,
            ranking_metrics_port,
        )
        group = ProcessGroup(stack_services(data_dir, model_dir, ports, intents, infer))
        try:
            if not signals.asked_to_stop():
                group.start()
                _watch(group, ports, start_timeout, signals)
        except ProcessGroupFailed as exc:
            raise CommandFailed(str(exc)) from exc
        finally:
            group.stop(signals.asked_to_hurry)


def _watch(group: ProcessGroup, ports: StackPorts, start_timeout_s: float, signals: StopSignals) -> None:
    if not group.wait_until_serving(start_timeout_s, signals.asked_to_stop):
        return
    print(
        f"ready encoder={ports.encoder_address} retrieval={ports.retrieval_address} ranking={ports.ranking_address}",
        flush=True,
    )
    while not signals.asked_to_stop():
        time.sleep(_POLL_S)
        group.require_alive()
    err.print("stopping")
