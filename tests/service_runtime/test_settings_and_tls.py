"""Settings: sources, faults all at once, plaintext refused off loopback; TLS and mTLS by files."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest
from pydantic import Field

from service_runtime.channels import open_channel
from service_runtime.server import running_server
from service_runtime.settings import ServerSettings, load_settings, service_settings_config
from tests.certificates import Authority
from tests.service_runtime.scripted_service import ScriptedService
from zhiyin.encoder.v1 import encoder_service_pb2 as pb
from zhiyin.encoder.v1 import encoder_service_pb2_grpc as pb_grpc


class SampleSettings(ServerSettings):
    """Settings of a test."""

    model_config = service_settings_config("SAMPLE")
    model_dir: Path = Field(..., description="Folder.")


def test_flags_win_over_environment_and_environment_over_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "sample.yaml"
    file.write_text("host: 127.0.0.2\nport: 1\nmodel_dir: /from/file\n")
    monkeypatch.setenv("ZHIYIN_SAMPLE_PORT", "2")
    monkeypatch.setenv("ZHIYIN_SAMPLE_GRACE_S", "9")
    settings = load_settings(SampleSettings, ["--config", str(file), "--grace-s", "7"])
    assert (settings.host, settings.port, settings.grace_s) == ("127.0.0.2", 2, 7)
    assert settings.model_dir == Path("/from/file")


def test_all_faults_are_reported_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load_settings(SampleSettings, ["--port", "99999", "--grace-s", "-1"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert all(name in told for name in ("port", "grace_s", "model_dir"))


def test_faults_of_a_file_are_reported_all_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "sample.yaml"
    file.write_text("prot: 1\ngrase_s: 3\nport: abc\nmodel_dir: x\n")
    with pytest.raises(SystemExit) as ended:
        load_settings(SampleSettings, ["--config", str(file)])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert all(f"setting {name}:" in told for name in ("prot", "grase_s", "port"))


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"- a\n", "name: value"), (b"a: [b\n", "not YAML"), (b"a: \xff\n", "not UTF-8"), (None, "no such file")],
)
def test_a_file_that_is_no_settings_file_is_said_clearly(
    content: bytes | None, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "sample.yaml"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(SystemExit) as ended:
        load_settings(SampleSettings, [f"--config={file}"])
    assert ended.value.code == 2
    assert complaint in capsys.readouterr().err


def test_a_misspelt_variable_is_reported(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("ZHIYIN_SAMPLE_PROT", "1")
    monkeypatch.setenv("ZHIYIN_SAMPLE_PORT", "2")
    monkeypatch.setenv("ZHIYIN_SAMPLE_ADDRESS", "what the command line tool reads")
    assert load_settings(SampleSettings, ["--model-dir", "x"]).port == 2
    (warning,) = capsys.readouterr().err.splitlines()
    assert "ZHIYIN_SAMPLE_PROT" in warning
    assert "did you mean ZHIYIN_SAMPLE_PORT?" in warning


def test_help_says_what_the_settings_are_for_and_where_they_come_from(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load_settings(SampleSettings, ["--help"])
    assert ended.value.code == 0
    told = " ".join(capsys.readouterr().out.split())
    for words in ("Settings of a test.", "--config FILE", "ZHIYIN_SAMPLE_PORT", "--model-dir Path Folder."):
        assert words in told


@pytest.mark.parametrize(
    ("host", "extra", "allowed"),
    [
        ("127.0.0.1", [], True),
        ("::1", [], True),
        ("0.0.0.0", [], False),
        ("0.0.0.0", ["--insecure"], True),
    ],
)
def test_plaintext_is_refused_off_loopback(
    host: str, extra: list[str], allowed: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--host", host, "--model-dir", "x", *extra]
    if allowed:
        assert load_settings(SampleSettings, argv).host == host
    else:
        with pytest.raises(SystemExit):
            load_settings(SampleSettings, argv)
        assert "--insecure" in capsys.readouterr().err


async def embed(channel: grpc.aio.Channel) -> int:
    async with channel:
        request = pb.EmbedRequest(texts=["a", "b"])
        return (await pb_grpc.EncoderServiceStub(channel).Embed(request, timeout=3)).cached_count


async def test_tls_and_mtls(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    cert, key = ours.issue("server")
    client_cert, client_key = ours.issue("client")
    wrong_cert, wrong_key = theirs.issue("intruder")
    tls = ServerSettings(tls_cert_file=cert, tls_key_file=key, drain_delay_s=0)
    async with running_server(ScriptedService(), tls) as address:
        assert await embed(open_channel(address, tls_ca_file=ours.file)) == 2
        with pytest.raises(grpc.aio.AioRpcError):
            await embed(open_channel(address, tls_ca_file=theirs.file))
        with pytest.raises(grpc.aio.AioRpcError):
            await embed(open_channel(address))
    mtls = tls.model_copy(update={"tls_client_ca_file": ours.file})
    async with running_server(ScriptedService(), mtls) as address:
        known = open_channel(address, tls_ca_file=ours.file, tls_cert_file=client_cert, tls_key_file=client_key)
        assert await embed(known) == 2
        with pytest.raises(grpc.aio.AioRpcError):
            await embed(open_channel(address, tls_ca_file=ours.file))
        with pytest.raises(grpc.aio.AioRpcError):
            await embed(open_channel(address, tls_ca_file=ours.file, tls_cert_file=wrong_cert, tls_key_file=wrong_key))
