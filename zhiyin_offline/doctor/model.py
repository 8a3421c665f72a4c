"""The model directory and what computes it."""

from __future__ import annotations

from collections.abc import Iterator

from encoder_service.model_directory import ModelDirectoryError, verify
from encoder_service.onnx_backend import missing_provider
from zhiyin_offline.doctor.diagnosis import Diagnosis, note, ok, problem
from zhiyin_offline.doctor.patient import Patient

_SUBJECT = "model"


def check_model(patient: Patient) -> Iterator[Diagnosis]:
    """Every file against its SHA-256 in the manifest, and the execution provider."""
    if not patient.model_dirs:
        yield note(_SUBJECT, "no model directory to look at", "`zhiyin up` makes one; else `zhiyin model export`")
    for folder in patient.model_dirs:
        try:
            manifest = verify(folder)
        except (ModelDirectoryError, OSError) as error:
            yield problem(_SUBJECT, str(error), "export it anew with `zhiyin model export`, or restore a backup")
            continue
        yield ok(
            _SUBJECT,
            f"{folder}: {manifest.name}, {manifest.precision}, {manifest.dimensions} dimensions, files as exported",
        )
    providers = patient.encoder.providers if patient.encoder is not None else ("cpu",)
    fallback = patient.encoder is not None and patient.encoder.allow_provider_fallback
    for i, provider in enumerate(providers):
        why = missing_provider(provider)
        if why is None:
            yield ok(_SUBJECT, f"ONNX Runtime offers the provider {provider}")
        elif i == 0 and not fallback:
            yield problem(
                _SUBJECT,
                f"provider {provider}: {why}",
                "install zhiyin[gpu] for cuda and tensorrt, zhiyin[cpu] for cpu",
            )
        else:
            yield note(_SUBJECT, f"provider {provider}: {why}", "the next one serves; install zhiyin[gpu] to use it")
