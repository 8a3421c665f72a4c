"""The default model, from its installed package."""

from __future__ import annotations

from pathlib import Path

from encoder_service.model_directory import verify


def test_the_package_s_files_are_honoured(minilm_model_dir: Path) -> None:
    manifest = verify(minilm_model_dir)
    assert (manifest.dimensions, manifest.max_tokens, manifest.pooling) == (384, 256, "mean")
    assert manifest.normalized
    assert manifest.prompts == {}


def test_the_graph_computes_what_pytorch_computes(minilm_model_dir: Path) -> None:
    parity = verify(minilm_model_dir).parity
    assert parity.max_abs_difference < 1e-6
    assert parity.min_cosine > 0.999999
