"""Clocks: ages of events and items, signed tokens and certificates are judged by the clock of each machine."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime

import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from service_runtime.errors import ZhiyinError
from service_runtime.sql import is_sqlite
from zhiyin_offline.doctor.answers import is_listening, split_address
from zhiyin_offline.doctor.diagnosis import Diagnosis, ok, problem
from zhiyin_offline.doctor.patient import Patient
from zhiyin_offline.doctor.stores import read_only, store_urls

_SUBJECT = "clocks"
_TOLERATED_S = 5.0


def check_clocks(patient: Patient) -> Iterator[Diagnosis]:
    """This machine's beside those of the services and of a database server."""
    for name, settings in patient.settings().items():
        if not settings.metrics_port or name not in patient.addresses:
            continue
        host = split_address(patient.addresses[name])[0]
        their = _time_of_metrics(host, settings.metrics_port)
        if their is not None:
            yield _judged(name, their)
    for name, (_, url) in store_urls(patient).items():
        if is_sqlite(url):
            continue
        try:
            with read_only(url) as connection:
                their = float(connection.execute(sa.text("SELECT extract(epoch FROM clock_timestamp())")).scalar_one())
        except (ZhiyinError, SQLAlchemyError):
            continue  # told under stores
        yield _judged(f"the database of {name}", their)


def _judged(whose: str, their: float) -> Diagnosis:
    skew = their - time.time()
    if abs(skew) <= _TOLERATED_S:
        return ok(_SUBJECT, f"the clock of {whose} agrees with this one")
    ahead = "ahead of" if skew > 0 else "behind"
    return problem(
        _SUBJECT,
        f"the clock of {whose} is {abs(skew):.0f} s {ahead} this one",
        "run NTP on both: ages of items and events, rules with a time and certificates depend on it",
    )


def _time_of_metrics(host: str, port: int) -> float | None:
    """What the metrics endpoint says in its header Date, in Unix seconds; whole ones."""
    if not is_listening(f"{host}:{port}"):
        return None
    try:
        connection = http.client.HTTPConnection(host, port, timeout=3)
        connection.request("HEAD", "/metrics")
        said = connection.getresponse().getheader("Date")
        return parsedate_to_datetime(said).timestamp() if said else None
    except (OSError, http.client.HTTPException, ValueError):
        return None
