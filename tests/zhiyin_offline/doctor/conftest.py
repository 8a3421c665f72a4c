"""A deployment that is well, for the tests to break."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ranking_service.users.store.store import UserStore
from retrieval_service import snapshot
from retrieval_service.item_store import ItemStore
from retrieval_service.space_index import Geometry, SpaceIndex
from service_runtime.sql import sqlite_url, writing
from zhiyin_offline.doctor.diagnosis import Diagnosis
from zhiyin_offline.doctor.patient import ClientTls, Patient, examine_settings

NOBODY = {"encoder": "127.0.0.1:1", "retrieval": "127.0.0.1:1", "ranking": "127.0.0.1:1"}


@pytest.fixture(autouse=True)
def _no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in os.environ:
        if name.startswith("ZHIYIN_"):
            monkeypatch.delenv(name)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """Stores with one catalogue, and a snapshot of its index."""
    (tmp_path / "retrieval").mkdir()
    (tmp_path / "ranking").mkdir()
    items = ItemStore(sqlite_url(tmp_path / "retrieval/items.sqlite3"))
    items.create_tables()
    with writing(items.engine) as connection:
        catalog = items.create_catalog(connection, "default", "")
        for _ in range(9):
            items.take_sequence(connection, catalog.catalog_id)
    items.close()
    users = UserStore(sqlite_url(tmp_path / "ranking/users.sqlite3"))
    users.open()
    users.close()
    index = SpaceIndex(Geometry(4))
    index.apply(7, np.arange(20, dtype=np.int64), np.eye(20, 4, dtype=np.float32), np.empty(0, np.int64))
    snapshot.write(index, tmp_path / f"retrieval/snapshots/{catalog.catalog_id}", "", 0.99)
    return tmp_path


def patient(data_dir: Path | None = None, addresses: dict[str, str] | None = None, **variables: str) -> Patient:
    """With variables such as ZHIYIN_RANKING_PORT."""
    tls = ClientTls()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        return examine_settings(data_dir, {}, {**NOBODY, **(addresses or {})}, dict(variables), frozenset(), tls)


def problems(found: Any) -> list[str]:
    return [f"{each.what} -> {each.advice}" for each in found if each.status == "problem"]


def only(found: list[str]) -> str:
    assert len(found) == 1, found
    return found[0]


def notes(found: list[Diagnosis]) -> list[str]:
    return [each.what for each in found if each.status == "note"]
