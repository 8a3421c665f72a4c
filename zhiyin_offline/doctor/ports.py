"""Ports and addresses: free, ours, or somebody else's; and whether the services find each other."""

from __future__ import annotations

import http.client
from collections.abc import Iterator

from zhiyin_offline.doctor.answers import Answer, ask_health, is_listening, split_address
from zhiyin_offline.doctor.diagnosis import Diagnosis, note, ok, problem
from zhiyin_offline.doctor.patient import FULL_NAMES, ClientTls, Patient

_SUBJECT = "ports"
_TLS_ADVICE = "use TLS (--tls-ca-file before the command) exactly if the service does, with the CA of its certificate"


def check_ports(patient: Patient) -> Iterator[Diagnosis]:
    """The three addresses, the metrics ports beside them, and the addresses by which services call each other."""
    for name, address in patient.addresses.items():
        yield _judged(name, address, ask_health(address, FULL_NAMES[name], patient.tls))
    for name, settings in patient.settings().items():
        if settings.metrics_port:
            yield from _metrics(name, f"{settings.host}:{settings.metrics_port}", patient)
    for caller, called, address, tls in _neighbours(patient):
        if address != patient.addresses.get(called):
            yield _judged(f"{called}, as {caller} calls it,", address, ask_health(address, FULL_NAMES[called], tls))


def _judged(name: str, address: str, answer: Answer) -> Diagnosis:
    if not answer.listening:
        return note(
            _SUBJECT, f"{name}: nobody listens at {address}", "start the service, unless it is meant to be down"
        )
    if answer.status == "SERVING":
        return ok(_SUBJECT, f"{name} serves at {address}")
    if answer.status == "UNKNOWN":
        return problem(
            _SUBJECT, f"{name}: another gRPC server listens at {address}", "correct the address, or move one of the two"
        )
    if answer.status:
        return problem(
            _SUBJECT,
            f"{name} at {address} says {answer.status}",
            "its log says why (`readiness`); loading takes up to minutes",
        )
    advice = f"stop what runs there, choose another port, or {_TLS_ADVICE}"
    return problem(_SUBJECT, f"{name}: what listens at {address} does not answer as ours ({answer.why})", advice)


def _metrics(name: str, address: str, patient: Patient) -> Iterator[Diagnosis]:
    running = is_listening(patient.addresses.get(name, ""))
    if not is_listening(address):
        if running:
            yield note(
                _SUBJECT,
                f"{name} runs, and nobody answers for its metrics at {address}",
                "it was started with another metrics_port (`zhiyin up --encoder-metrics-port` and its like)",
            )
        return
    if _is_ours(address):
        yield ok(_SUBJECT, f"the metrics of {name} are at {address}")
    else:
        yield problem(
            _SUBJECT, f"the metrics of {name}: something else listens at {address}", "choose another metrics_port"
        )


def _is_ours(address: str) -> bool:
    try:
        connection = http.client.HTTPConnection(*split_address(address), timeout=3)
        connection.request("GET", "/metrics")
        return b"zhiyin_service_ready" in connection.getresponse().read()
    except (OSError, http.client.HTTPException):
        return False


def _neighbours(patient: Patient) -> Iterator[tuple[str, str, str, ClientTls]]:
    """Who calls whom where."""
    if (one := patient.retrieval) is not None:
        tls = ClientTls(one.encoder_tls_ca_file, one.encoder_tls_cert_file, one.encoder_tls_key_file)
        yield "retrieval", "encoder", one.encoder_address, tls
    if (other := patient.ranking) is not None:
        tls = ClientTls(other.dependency_tls_ca_file, other.dependency_tls_cert_file, other.dependency_tls_key_file)
        yield "ranking", "encoder", other.encoder_address, tls
        yield "ranking", "retrieval", other.retrieval_address, tls
