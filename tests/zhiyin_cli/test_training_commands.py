"""`zhiyin train` where it cannot do its work: a line that says why, no traceback."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from zhiyin_cli.main import app


def test_a_folder_that_is_no_data_directory_is_named(tmp_path: Path) -> None:
    result = CliRunner().invoke(app, ["train", "--data-dir", str(tmp_path / "nothing")])
    assert result.exit_code == 1
    assert "is no data directory of running services" in " ".join(result.output.split())
    assert isinstance(result.exception, SystemExit)


def test_a_missing_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("zhiyin_offline.training")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "zhiyin_offline.training.train", None)
    result = CliRunner().invoke(app, ["train", "--data-dir", str(tmp_path)])
    assert result.exit_code == 1
    assert "pip install 'zhiyin[cpu,train]'" in " ".join(result.output.split())
    assert isinstance(result.exception, SystemExit)
