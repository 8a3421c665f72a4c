"""All checks in the order in which one would look."""

from __future__ import annotations

from collections.abc import Iterator

from zhiyin_offline.doctor.clocks import check_clocks
from zhiyin_offline.doctor.diagnosis import Diagnosis
from zhiyin_offline.doctor.index import check_index
from zhiyin_offline.doctor.model import check_model
from zhiyin_offline.doctor.patient import Patient
from zhiyin_offline.doctor.ports import check_ports
from zhiyin_offline.doctor.services import check_services
from zhiyin_offline.doctor.settings import check_settings
from zhiyin_offline.doctor.stores import check_stores
from zhiyin_offline.doctor.tls import check_tls

_CHECKS = (
    check_settings,
    check_tls,
    check_model,
    check_stores,
    check_index,
    check_ports,
    check_services,
    check_clocks,
)


def examine(patient: Patient) -> Iterator[Diagnosis]:
    """Every diagnosis, as soon as it is made."""
    for check in _CHECKS:
        yield from check(patient)
