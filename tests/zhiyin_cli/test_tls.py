"""The command against servers with TLS and mTLS."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from typer.testing import CliRunner, Result

from tests.certificates import Authority
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as ranking_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc
from zhiyin_cli.main import app


@contextmanager
def _tls_server(services: Any, authority: Authority, mutual: bool = False) -> Iterator[str]:
    cert, key = authority.issue("server")
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), cert.read_bytes())], authority.file.read_bytes() if mutual else None, mutual
    )
    server = grpc.server(ThreadPoolExecutor(max_workers=8))
    retrieval_grpc.add_RetrievalServiceServicer_to_server(services, server)
    ranking_grpc.add_RankingServiceServicer_to_server(services, server)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(grace=None).wait()


def _run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))


def test_tls_by_the_ca_of_the_server(services: Any, tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    items = tmp_path / "items.jsonl"
    items.write_text('{"id": "1", "title": "one"}\n')
    with _tls_server(services, ours) as address:
        asked = ("recommend", "--user", "u", "--timeout", "5", "--ranking-address", address)
        good = _run("--tls-ca-file", str(ours.file), *asked)
        assert good.exit_code == 0, good.output
        assert "最新上映的电影《长津湖》" in good.output
        imported = _run(
            "--tls-ca-file", str(ours.file), "items", "import", str(items),
            "--retrieval-address", address, "--state-dir", str(tmp_path / "state"),
        )  # fmt: skip
        assert imported.exit_code == 0, imported.output
        assert services.items == {"1": "one"}
        for bad in (_run("--tls-ca-file", str(theirs.file), *asked), _run(*asked)):
            assert bad.exit_code == 1
            assert "UNAVAILABLE" in bad.output
            assert "--tls-ca-file" in bad.output


def test_mtls_needs_the_certificate_of_the_client(services: Any, tmp_path: Path) -> None:
    ours = Authority(tmp_path, "ours")
    cert, key = ours.issue("client")
    with _tls_server(services, ours, mutual=True) as address:
        asked = ("recommend", "--user", "u", "--timeout", "5", "--ranking-address", address)
        ca = ("--tls-ca-file", str(ours.file))
        known = _run(*ca, "--tls-cert-file", str(cert), "--tls-key-file", str(key), *asked)
        assert known.exit_code == 0, known.output
        assert _run(*ca, *asked).exit_code == 1


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("--tls-ca-file", "missing.pem"), "does not exist"),
        (("--tls-cert-file", "{file}", "--tls-key-file", "{file}"), "plaintext"),
        (("--tls-ca-file", "{file}", "--tls-cert-file", "{file}"), "go together"),
    ],
)
def test_wrong_files_are_said_clearly(flags: tuple[str, ...], complaint: str, tmp_path: Path) -> None:
    file = tmp_path / "no.pem"
    file.write_text("this is no certificate")
    result = _run(*(flag.format(file=file) for flag in flags), "recommend", "--user", "u", "--timeout", "2")
    assert result.exit_code in (1, 2)
    assert complaint in result.output
    assert "Traceback" not in result.output
