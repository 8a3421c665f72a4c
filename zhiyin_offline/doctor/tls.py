"""TLS files: there, readable, key and certificate of each other, and for how long."""

from __future__ import annotations

import os
import ssl
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from zhiyin_offline.doctor.diagnosis import Diagnosis, note, ok, problem
from zhiyin_offline.doctor.patient import Patient

_SUBJECT = "tls"
_DAY_S = 86_400.0
_SOON_DAYS = 30
_EXPIRED, _NOT_YET_VALID = 10, 9  # X509_V_ERR_CERT_HAS_EXPIRED, X509_V_ERR_CERT_NOT_YET_VALID
# Settings: the certificate, its key, and the CA of whoever is on the other side.
_GROUPS = (
    ("tls_cert_file", "tls_key_file", "tls_client_ca_file"),
    ("encoder_tls_cert_file", "encoder_tls_key_file", "encoder_tls_ca_file"),
    ("dependency_tls_cert_file", "dependency_tls_key_file", "dependency_tls_ca_file"),
)


def check_tls(patient: Patient) -> Iterator[Diagnosis]:
    """The files of every service, and those of this command."""
    found = False
    for name, settings in patient.settings().items():
        for group in _GROUPS:
            files = [getattr(settings, field, None) for field in group]
            if any(files):
                found = True
                yield from _check(f"{name}.{group[0].removesuffix('_cert_file')}", *files)
    if patient.tls.ca_file is not None:
        found = True
        yield from _check("this command", patient.tls.cert_file, patient.tls.key_file, patient.tls.ca_file)
    if not found:
        yield ok(_SUBJECT, "no TLS files are set: plaintext, which services speak on loopback or with --insecure only")


def _check(whose: str, cert: Path | None, key: Path | None, ca: Path | None) -> Iterator[Diagnosis]:
    unreadable = [path for path in (cert, key, ca) if path is not None and not _readable(path)]
    for path in unreadable:
        yield problem(
            _SUBJECT, f"{whose}: {path} is missing or cannot be read", "name another file, or mend its rights"
        )
    if unreadable:
        return
    if ca is not None:
        yield from _check_authorities(whose, ca)
    if (cert is None) != (key is None):
        yield problem(_SUBJECT, f"{whose}: certificate and key go together", "set both or none")
    elif cert is not None and key is not None:
        yield from _check_pair(whose, cert, key)


def _readable(path: Path) -> bool:
    return path.is_file() and os.access(path, os.R_OK)


def _check_authorities(whose: str, ca: Path) -> Iterator[Diagnosis]:
    try:
        found = ssl.create_default_context(cafile=str(ca)).get_ca_certs()
    except (ssl.SSLError, OSError):
        found = []
    if not found:
        yield problem(_SUBJECT, f"{whose}: {ca} holds no CA certificate in PEM", "name the file of the CA that signs")
        return
    for each in found:
        yield from _judge_end(f"{whose}: a CA in {ca}", ssl.cert_time_to_seconds(str(each["notAfter"])))


def _check_pair(whose: str, cert: Path, key: Path) -> Iterator[Diagnosis]:
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        server.load_cert_chain(cert, key, password=lambda: "")
    except (ssl.SSLError, OSError) as error:
        if "MISMATCH" in str(error):
            yield problem(
                _SUBJECT, f"{whose}: the key {key} is not that of {cert}", "use the two that were made together"
            )
        else:
            yield problem(
                _SUBJECT,
                f"{whose}: {cert} and {key} cannot be used ({getattr(error, 'reason', None) or error})",
                "both have to be PEM, the key without a passphrase",
            )
        return
    if key.stat().st_mode & (stat.S_IRGRP | stat.S_IROTH):
        yield note(_SUBJECT, f"{whose}: others than its owner may read the key {key}", f"chmod 600 {key}")
    try:
        yield from _judge_end(f"{whose}: {cert}", _not_after(server, cert))
    except ssl.SSLCertVerificationError as error:
        if error.verify_code == _EXPIRED:
            yield problem(_SUBJECT, f"{whose}: {cert} has expired", "renew it and restart the service")
        elif error.verify_code == _NOT_YET_VALID:
            yield problem(_SUBJECT, f"{whose}: {cert} is not valid yet", "look at the clock of this machine, or wait")
        else:
            yield problem(_SUBJECT, f"{whose}: {cert} is refused ({error.verify_message})", "have it issued anew")


def _judge_end(what: str, not_after: float) -> Iterator[Diagnosis]:
    days = (not_after - time.time()) / _DAY_S
    if days < 0:
        yield problem(_SUBJECT, f"{what} has expired", "renew it and restart the service")
    elif days < _SOON_DAYS:
        yield note(_SUBJECT, f"{what} expires in {days:.0f} days", "renew it and restart the service")
    else:
        yield ok(_SUBJECT, f"{what} is in order, for {days:.0f} days more")


def _not_after(server: ssl.SSLContext, cert: Path) -> float:
    """When a certificate ends, in Unix seconds: the standard library tells it of a peer only, so we meet ourselves.

    Raises:
        ssl.SSLCertVerificationError: It is expired or not valid yet.
    """
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # trusts the certificate itself
    client.load_verify_locations(cert)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = client.wrap_bio(to_client, to_server)
    theirs = server.wrap_bio(to_server, to_client, server_side=True)
    for _ in range(4):
        for side in (ours, theirs):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    peer = ours.getpeercert()
    assert peer, "the handshake ends within two round trips"
    return ssl.cert_time_to_seconds(str(peer["notAfter"]))
