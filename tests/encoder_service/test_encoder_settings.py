"""The settings of the encoder as an operator writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from encoder_service.conversions import MAX_ANSWER_BYTES, effective_limits
from encoder_service.settings import EncoderSettings
from service_runtime.settings import load_settings


def test_flags_with_a_list_of_providers(tmp_path: Path) -> None:
    argv = ["--model-dir", str(tmp_path), "--providers", "cuda,cpu", "--allow-provider-fallback", "--threads", "2"]
    settings = load_settings(EncoderSettings, argv)
    assert settings.providers == ("cuda", "cpu")
    assert settings.allow_provider_fallback
    assert (settings.threads, settings.port, settings.metrics_port) == (2, 50051, 9051)


def test_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZHIYIN_ENCODER_MODEL_DIR", "/models/a")
    monkeypatch.setenv("ZHIYIN_ENCODER_PROVIDERS", "tensorrt, cuda")
    settings = load_settings(EncoderSettings, [])
    assert settings.model_dir == Path("/models/a")
    assert settings.providers == ("tensorrt", "cuda")


def test_every_fault_is_told_at_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        load_settings(EncoderSettings, ["--providers", "npu", "--max-batch-tokens", "3"])
    assert ended.value.code == 2
    told = capsys.readouterr().err
    assert "model_dir" in told
    assert "providers" in told
    assert "max_batch_tokens" in told


def test_a_file(tmp_path: Path) -> None:
    file = tmp_path / "encoder.yaml"
    file.write_text(f"model_dir: {tmp_path}\nproviders: [cuda, cpu]\ncache_bytes: 0\n")
    settings = load_settings(EncoderSettings, ["--config", str(file)])
    assert settings.providers == ("cuda", "cpu")
    assert settings.cache_bytes == 0


@pytest.mark.parametrize("dimensions", [8, 384, 1024, 4096])
def test_no_answer_passes_what_clients_accept(dimensions: int) -> None:
    limits = effective_limits(4096, 100, dimensions)
    assert limits.max_texts * (dimensions * 4 + 16) <= MAX_ANSWER_BYTES
    assert effective_limits(256, 100, 384).max_texts == 256
