"""The deployment that is looked at: the settings its three services would start with, and where they answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from encoder_service.settings import EncoderSettings
from ranking_service.settings import RankingSettings
from retrieval_service.settings import RetrievalSettings
from service_runtime.settings import ServerSettings, read_settings

CLASSES: dict[str, type[ServerSettings]] = {
    "encoder": EncoderSettings,
    "retrieval": RetrievalSettings,
    "ranking": RankingSettings,
}
METRICS_PORTS = {"encoder": 9051, "retrieval": 9052, "ranking": 9053}
FULL_NAMES = {
    "encoder": "zhiyin.encoder.v1.EncoderService",
    "retrieval": "zhiyin.retrieval.v1.RetrievalService",
    "ranking": "zhiyin.ranking.v1.RankingService",
}


@dataclass(frozen=True)
class ClientTls:
    """PEM files for calls; no CA: plaintext."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


@dataclass(frozen=True)
class Patient:
    """One deployment.

    Attributes:
        addresses: host:port of each service.
        environment: Variables of the services.
        known_variables: Names with the prefix ZHIYIN_ that mean something to the command.
        encoder: Settings; None where they have faults.
        retrieval: Settings; None where they have faults.
        ranking: Settings; None where they have faults.
        faults: Of settings, by service.
        model_dirs: Model directories to look at.
        tls: How to call the services.
    """

    addresses: Mapping[str, str]
    environment: Mapping[str, str]
    known_variables: frozenset[str]
    encoder: EncoderSettings | None
    retrieval: RetrievalSettings | None
    ranking: RankingSettings | None
    faults: Mapping[str, list[str]]
    model_dirs: list[Path] = field(default_factory=list)
    tls: ClientTls = field(default_factory=ClientTls)

    def settings(self) -> dict[str, ServerSettings]:
        """Of the services whose settings can be read."""
        found = {"encoder": self.encoder, "retrieval": self.retrieval, "ranking": self.ranking}
        return {name: settings for name, settings in found.items() if settings is not None}


def examine_settings(
    data_dir: Path | None,
    configs: Mapping[str, Path | None],
    addresses: Mapping[str, str],
    environment: Mapping[str, str],
    known_variables: frozenset[str] = frozenset(),
    tls: ClientTls | None = None,
) -> Patient:
    """Reads the settings as the services would: variables of this process, then the files.

    Args:
        data_dir: Of `zhiyin up`, which puts each service into a folder of it; None: as the settings say.
        configs: File of each service, if any.
        addresses: Where the services answer.
        environment: This process's.
        known_variables: Those of the command.
        tls: How to call the services.
    """
    given: dict[str, dict[str, Any]] = {name: {} for name in CLASSES}
    models: list[Path] = []
    if data_dir is not None:  # and its ports, as `zhiyin up` gives them
        for name, port in METRICS_PORTS.items():
            given[name]["metrics_port"] = port
        given["retrieval"]["data_dir"], given["ranking"]["data_dir"] = data_dir / "retrieval", data_dir / "ranking"
        models = sorted(path.parent for path in (data_dir / "models").glob("*/manifest.json"))
        given["encoder"]["model_dir"] = models[0] if models else data_dir / "models"
    encoder, encoder_faults = read_settings(EncoderSettings, configs.get("encoder"), given["encoder"])
    retrieval, retrieval_faults = read_settings(RetrievalSettings, configs.get("retrieval"), given["retrieval"])
    ranking, ranking_faults = read_settings(RankingSettings, configs.get("ranking"), given["ranking"])
    if encoder is not None and data_dir is None:
        models = [encoder.model_dir]
    return Patient(
        addresses,
        environment,
        known_variables,
        encoder,
        retrieval,
        ranking,
        {"encoder": encoder_faults, "retrieval": retrieval_faults, "ranking": ranking_faults},
        models,
        tls or ClientTls(),
    )
