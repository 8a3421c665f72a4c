"""The three services on one machine: which processes, with which flags, over which folders."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from zhiyin_cli.process_group import ServiceProcess, free_port

HOST = "127.0.0.1"


@dataclass(frozen=True)
class StackPorts:
    """Where the services listen."""

    encoder: int = 50051
    retrieval: int = 50052
    ranking: int = 50053
    encoder_metrics: int = 0
    retrieval_metrics: int = 0
    ranking_metrics: int = 0

    @classmethod
    def free(cls) -> StackPorts:
        """Ports that nobody listens on."""
        return cls(free_port(), free_port(), free_port())

    @property
    def encoder_address(self) -> str:
        """Where to reach the encoder."""
        return f"{HOST}:{self.encoder}"

    @property
    def retrieval_address(self) -> str:
        """Where to reach retrieval."""
        return f"{HOST}:{self.retrieval}"

    @property
    def ranking_address(self) -> str:
        """Where to reach ranking."""
        return f"{HOST}:{self.ranking}"


def stack_services(
    data_dir: Path, model_dir: Path, ports: StackPorts, intents: Path | None = None, inferred: Path | None = None
) -> list[ServiceProcess]:
    """The processes, in the order of who calls whom: a service comes after those it needs.

    `intents` and `inferred` are the files of labels for ranking and for retrieval; None: as their variables say.
    """
    to_encoder = ["--encoder-address", ports.encoder_address]
    to_retrieval = ["--retrieval-address", ports.retrieval_address]
    return [
        _service("encoder", ports.encoder, ports.encoder_metrics, data_dir, ["--model-dir", str(model_dir)]),
        _service(
            "retrieval",
            ports.retrieval,
            ports.retrieval_metrics,
            data_dir,
            [
                *("--data-dir", str(data_dir / "retrieval"), *to_encoder),
                *(("--inferred-attributes-file", str(inferred)) if inferred is not None else ()),
            ],
        ),
        _service(
            "ranking",
            ports.ranking,
            ports.ranking_metrics,
            data_dir,
            [
                *("--data-dir", str(data_dir / "ranking"), *to_retrieval, *to_encoder),
                *(("--intents-file", str(intents)) if intents is not None else ()),
            ],
        ),
    ]


def _service(name: str, port: int, metrics_port: int, data_dir: Path, flags: Sequence[str]) -> ServiceProcess:
    # No load balancer watches these ports, so there is nobody to wait for between NOT_SERVING and the stop.
    common = ["--host", HOST, "--port", str(port), "--metrics-port", str(metrics_port)]
    common += ["--drain-delay-s", "0", "--exit-with-parent"]
    return ServiceProcess(
        name=name,
        argv=[sys.executable, "-m", f"{name}_service", *common, *flags],
        host=HOST,
        port=port,
        log_file=data_dir / "logs" / f"{name}.log",
    )
