"""What `zhiyin doctor` says of settings, TLS files, models, stores and indexes that are broken in the usual ways."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from pathlib import Path

import pytest

from service_runtime.folder_lock import FolderLock
from tests.certificates import Authority
from tests.zhiyin_offline.doctor.conftest import notes, only, patient, problems
from zhiyin_offline.doctor.examine import examine
from zhiyin_offline.doctor.index import check_index
from zhiyin_offline.doctor.model import check_model
from zhiyin_offline.doctor.settings import check_settings
from zhiyin_offline.doctor.stores import check_stores
from zhiyin_offline.doctor.tls import check_tls

# ---- settings


def test_a_misspelt_variable_is_named_with_what_was_meant() -> None:
    found = list(check_settings(patient(ZHIYIN_RANKNG_PORT="1", ZHIYIN_ENCODER_PORT_50051_TCP="tcp://10.0.0.1:50051")))
    assert "ZHIYIN_RANKNG_PORT counts for nothing -> did you mean ZHIYIN_RANKING_PORT?" in only(problems(found))
    assert any("ZHIYIN_ENCODER_PORT_50051_TCP" in each for each in notes(found))  # Kubernetes sets such


def test_variables_of_the_services_and_of_the_command_are_fine(tmp_path: Path) -> None:
    with_all = patient(
        tmp_path, ZHIYIN_RANKING_PORT="50060", ZHIYIN_RANKING_ADDRESS="a:1", ZHIYIN_RETRIEVAL_LOG_LEVEL="debug"
    )
    assert problems(check_settings(with_all)) == []
    assert with_all.ranking is not None
    assert with_all.ranking.port == 50060


def test_a_value_out_of_range_is_told_with_its_setting() -> None:
    found = only(problems(check_settings(patient(ZHIYIN_RETRIEVAL_REBUILD_ABOVE="7"))))
    assert "retrieval: setting rebuild_above" in found
    assert "python -m retrieval_service --help" in found


@pytest.mark.parametrize(
    ("variables", "told"),
    [
        ({"ZHIYIN_RANKING_PORT": "50052"}, "ranking and retrieval have the same port 50052"),
        ({"ZHIYIN_RANKING_DATA_DIR": "x", "ZHIYIN_RETRIEVAL_DATA_DIR": "./x"}, "the same data_dir"),
        (
            {"ZHIYIN_RANKING_STORE_URL": "sqlite:////srv/a.db", "ZHIYIN_RETRIEVAL_STORE_URL": "sqlite:////srv/a.db"},
            "the same store_url",
        ),
    ],
)
def test_settings_of_two_services_that_do_not_go_together(variables: dict[str, str], told: str) -> None:
    assert told in only(problems(check_settings(patient(**variables))))


def test_an_encoder_with_tls_and_callers_without(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path, "ca").issue("encoder")
    of_encoder = {"ZHIYIN_ENCODER_TLS_CERT_FILE": str(cert), "ZHIYIN_ENCODER_TLS_KEY_FILE": str(key)}
    found = problems(check_settings(patient(tmp_path, **of_encoder)))
    assert [each.split(" -> ")[1] for each in found] == [
        "set encoder_tls_ca_file of retrieval",
        "set dependency_tls_ca_file of ranking",
    ]
    ca = str(tmp_path / "ca.pem")
    cured = of_encoder | {"ZHIYIN_RETRIEVAL_ENCODER_TLS_CA_FILE": ca, "ZHIYIN_RANKING_DEPENDENCY_TLS_CA_FILE": ca}
    assert problems(check_settings(patient(tmp_path, **cured))) == []


# ---- TLS


def _tls(cert: Path, key: Path) -> list[str]:
    variables = {"ZHIYIN_RANKING_TLS_CERT_FILE": str(cert), "ZHIYIN_RANKING_TLS_KEY_FILE": str(key)}
    return problems(check_tls(patient(**variables)))


def test_a_good_pair_is_in_order_and_says_for_how_long(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path, "ca").issue("server", days=90.5)
    key.chmod(0o600)
    variables = {"ZHIYIN_RANKING_TLS_CERT_FILE": str(cert), "ZHIYIN_RANKING_TLS_KEY_FILE": str(key)}
    (found,) = check_tls(patient(**variables))
    assert (found.status, found.what.rsplit(",", 1)[1]) == ("ok", " for 90 days more")
    key.chmod(0o644)
    assert f"chmod 600 {key}" in [each.advice for each in check_tls(patient(**variables))]


def test_key_and_certificate_of_two_pairs(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    (cert, _), (_, key) = authority.issue("one"), authority.issue("two")
    assert f"the key {key} is not that of {cert}" in only(_tls(cert, key))


def test_an_expired_certificate_and_one_that_soon_will_be(tmp_path: Path) -> None:
    authority = Authority(tmp_path, "ca")
    assert "has expired -> renew it" in only(_tls(*authority.issue("old", days=-2)))
    cert, key = authority.issue("soon", days=10.5)
    variables = {"ZHIYIN_RANKING_TLS_CERT_FILE": str(cert), "ZHIYIN_RANKING_TLS_KEY_FILE": str(key)}
    assert any("expires in 10 days" in each for each in notes(list(check_tls(patient(**variables)))))


def test_a_file_that_is_no_certificate(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path, "ca").issue("server")
    cert.write_text("hello")
    assert "cannot be used" in only(_tls(cert, key))
    ca = tmp_path / "none.pem"
    ca.write_text("hello")
    assert "holds no CA" in only(problems(check_tls(patient(ZHIYIN_RETRIEVAL_ENCODER_TLS_CA_FILE=str(ca)))))


def test_a_tls_file_that_went_away_after_the_settings_were_read(tmp_path: Path) -> None:
    cert, key = Authority(tmp_path, "ca").issue("server")
    sick = patient(ZHIYIN_RANKING_TLS_CERT_FILE=str(cert), ZHIYIN_RANKING_TLS_KEY_FILE=str(key))
    key.unlink()
    assert f"{key} is missing or cannot be read" in only(problems(check_tls(sick)))


# ---- model


def test_a_changed_model_file_is_found_by_its_hash(minilm_model_dir: Path, tmp_path: Path) -> None:
    copy = tmp_path / "models/minilm"
    shutil.copytree(minilm_model_dir, copy)
    assert problems(check_model(patient(tmp_path))) == []
    tokenizer = copy / "tokenizer.json"
    content = bytearray(tokenizer.read_bytes())
    content[100] ^= 1
    tokenizer.write_bytes(content)
    assert "tokenizer.json is damaged or was changed" in only(problems(check_model(patient(tmp_path))))


def test_a_provider_that_is_not_installed(tmp_path: Path) -> None:
    sick = only(problems(check_model(patient(tmp_path, ZHIYIN_ENCODER_PROVIDERS="tensorrt,cpu"))))
    assert "provider tensorrt" in sick
    assert "install zhiyin[gpu]" in sick
    may = {"ZHIYIN_ENCODER_PROVIDERS": "tensorrt,cpu", "ZHIYIN_ENCODER_ALLOW_PROVIDER_FALLBACK": "true"}
    assert problems(check_model(patient(tmp_path, **may))) == []


# ---- stores


def test_stores_that_are_well(data_dir: Path) -> None:
    found = list(check_stores(patient(data_dir)))
    assert problems(found) == []
    assert sum("has the schema of this release" in each.what for each in found) == 2


def _change(file: Path, statement: str) -> None:
    connection = sqlite3.connect(file)
    connection.execute(statement)
    connection.commit()
    connection.close()


def test_a_schema_of_a_newer_release(data_dir: Path) -> None:
    _change(data_dir / "ranking/users.sqlite3", "UPDATE alembic_version SET version_num = 'users_9999'")
    assert "has schema users_9999" in only(problems(check_stores(patient(data_dir))))


def test_the_store_of_the_other_service(data_dir: Path) -> None:
    shutil.copy(data_dir / "retrieval/items.sqlite3", data_dir / "ranking/users.sqlite3")
    assert "is another service's" in only(problems(check_stores(patient(data_dir))))


def test_a_file_that_is_no_database(data_dir: Path) -> None:
    (data_dir / "retrieval/items.sqlite3").write_bytes(os.urandom(8192))
    found = only(problems(check_stores(patient(data_dir))))
    assert "the item store cannot be read (DatabaseError)" in found
    assert "zhiyin restore" in found


def test_who_holds_a_folder_and_what_was_left_unfinished_there(data_dir: Path) -> None:
    lock = FolderLock(data_dir / "ranking")
    lock.take()
    try:
        held = [each.what for each in check_stores(patient(data_dir)) if "is held by" in each.what]
        assert held == [f"ranking: {data_dir / 'ranking'} is held by process {os.getpid()}"]
        lock.mark("a restore was interrupted; run it again")
    finally:
        lock.release()
    assert "run it again -> do what it says" in only(problems(check_stores(patient(data_dir))))
    assert not [each for each in check_stores(patient(data_dir)) if "is held by" in each.what]


def test_a_disk_without_room(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: shutil._ntuple_diskusage(10**10, 10**10, 4096))
    found = problems(check_stores(patient(data_dir)))
    assert len(found) == 2
    assert "STORE_FULL" in found[0]


# ---- index


def _snapshot(data_dir: Path) -> Path:
    (folder,) = (data_dir / "retrieval/snapshots").glob("*/snapshot-*")
    return folder


def test_a_snapshot_that_is_well(data_dir: Path) -> None:
    (found,) = check_index(patient(data_dir))
    assert found.status == "ok"
    assert "2 writes behind the store, recall@10 0.990" in found.what


def test_a_snapshot_with_a_short_file(data_dir: Path) -> None:
    matrix = _snapshot(data_dir) / "matrix.npy"
    matrix.write_bytes(matrix.read_bytes()[:-16])
    found = only(problems(check_index(patient(data_dir))))
    assert "matrix.npy has" in found
    assert "rebuilds it from the store" in found


def test_a_manifest_that_was_changed(data_dir: Path) -> None:
    manifest = _snapshot(data_dir) / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"sequence": 7', '"sequence": 9'))
    assert "the manifest has another checksum" in only(problems(check_index(patient(data_dir))))


def test_a_snapshot_that_is_newer_than_the_store(data_dir: Path) -> None:
    _change(data_dir / "retrieval/items.sqlite3", "UPDATE catalog_head SET seq = 3")
    assert "is of sequence 7, the store of 3" in only(problems(check_index(patient(data_dir))))


# ---- all of it


def test_the_doctor_changes_nothing(data_dir: Path) -> None:
    def state() -> dict[str, str]:
        files = [path for path in data_dir.rglob("*") if path.is_file()]
        return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}

    before = state()
    assert problems(examine(patient(data_dir))) == []
    assert state() == before


def test_before_the_first_start_nothing_is_wrong_and_nothing_is_made(tmp_path: Path) -> None:
    assert problems(examine(patient(tmp_path / "new"))) == []
    assert list(tmp_path.iterdir()) == []
