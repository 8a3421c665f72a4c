"""Settings: faults, variables that mean nothing, and settings of two services that do not go together."""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from service_runtime.sql import is_sqlite
from zhiyin_offline.doctor.diagnosis import Diagnosis, note, ok, problem
from zhiyin_offline.doctor.patient import CLASSES, Patient

_SUBJECT = "settings"
_OURS = "ZHIYIN_"
_OF_TESTS = ("ZHIYIN_TEST_", "ZHIYIN_NO_SKIPS")


def check_settings(patient: Patient) -> Iterator[Diagnosis]:
    """Everything about settings."""
    found = [*_faults(patient), *_unknown_variables(patient), *_contradictions(patient)]
    yield from found
    if not any(each.status == "problem" for each in found):
        yield ok(_SUBJECT, f"those of {', '.join(patient.settings())} can be read and go together")


def _faults(patient: Patient) -> Iterator[Diagnosis]:
    for name, faults in patient.faults.items():
        for fault in faults:
            if name == "encoder" and fault.startswith("setting model_dir: Field required"):
                yield note(
                    _SUBJECT,
                    "encoder: no model directory is named",
                    "set ZHIYIN_ENCODER_MODEL_DIR, or name the folder of `zhiyin up` by --data-dir",
                )
            else:
                yield problem(
                    _SUBJECT, f"{name}: {fault}", f"correct it; `python -m {name}_service --help` lists every setting"
                )


def _unknown_variables(patient: Patient) -> Iterator[Diagnosis]:
    known = {f"{_OURS}{name.upper()}_{field.upper()}" for name, cls in CLASSES.items() for field in cls.model_fields}
    known |= {f"{_OURS}{name.upper()}_ADDRESS" for name in CLASSES} | patient.known_variables
    for name in sorted(patient.environment):
        if not name.upper().startswith(_OURS) or name.upper() in known or name.startswith(_OF_TESTS):
            continue
        if near := difflib.get_close_matches(name.upper(), sorted(known), n=1, cutoff=0.8):
            yield problem(_SUBJECT, f"the variable {name} counts for nothing", f"did you mean {near[0]}?")
        else:
            yield note(_SUBJECT, f"the variable {name} counts for nothing", "remove it, unless another program sets it")


def _contradictions(patient: Patient) -> Iterator[Diagnosis]:
    retrieval, ranking, encoder = patient.retrieval, patient.ranking, patient.encoder
    taken: dict[int, str] = {}
    for name, settings in patient.settings().items():
        for what, port in ((name, settings.port), (f"the metrics of {name}", settings.metrics_port)):
            if port and port in taken:
                yield problem(_SUBJECT, f"{what} and {taken[port]} have the same port {port}", "give each its own")
            taken.setdefault(port, what)
    if retrieval is not None and ranking is not None:
        if retrieval.data_dir.resolve() == ranking.data_dir.resolve():
            yield problem(_SUBJECT, "retrieval and ranking have the same data_dir", "give each a folder of its own")
        if retrieval.store_url and retrieval.store_url == ranking.store_url:
            yield problem(_SUBJECT, "retrieval and ranking have the same store_url", "give each a database of its own")
        if retrieval.encoder_address != ranking.encoder_address:
            yield note(
                _SUBJECT,
                f"retrieval asks the encoder at {retrieval.encoder_address}, ranking at {ranking.encoder_address}",
                "both have to serve the same model",
            )
    if (
        ranking is not None
        and ranking.store_url
        and not is_sqlite(ranking.store_url)
        and ranking.token_key_file is None
    ):
        yield note(
            _SUBJECT,
            "ranking has a database that replicas can share, and a token key of its own",
            "with more than one replica give all of them one token_key_file",
        )
    asked = {
        "retrieval": (encoder, retrieval.encoder_tls_ca_file if retrieval is not None else None),
        "ranking": (encoder, ranking.dependency_tls_ca_file if ranking is not None else None),
    }
    for caller, (served, ca_file) in asked.items():
        if served is None or caller not in patient.settings():
            continue
        field = "encoder_tls_ca_file" if caller == "retrieval" else "dependency_tls_ca_file"
        if served.tls_cert_file is not None and ca_file is None:
            yield problem(
                _SUBJECT, f"the encoder has TLS and {caller} would call it without", f"set {field} of {caller}"
            )
        elif served.tls_cert_file is None and ca_file is not None:
            yield problem(
                _SUBJECT, f"{caller} would call the encoder with TLS, which it has not", f"unset {field} of {caller}"
            )
