"""The stubs and services import from a wheel and from an editable install, and the wheel carries the protos."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PROBE = """
import sys
sys.path.insert(0, sys.argv[1])
import zhiyin.ranking.v1.ranking_service_pb2_grpc as stubs
import encoder_service, retrieval_service, ranking_service, service_runtime, zhiyin_cli, zhiyin_client, zhiyin_offline
from zhiyin.common.v1 import item_pb2, filter_pb2, embedding_pb2, error_pb2
from zhiyin.encoder.v1 import encoder_service_pb2_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc
for module in (stubs, item_pb2, encoder_service_pb2_grpc, ranking_service, zhiyin_client):
    assert module.__file__.startswith(sys.argv[1]), module.__file__
print("imported")
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = out.glob("zhiyin-*.whl")
    return path


def test_everything_imports_from_the_wheel(wheel: Path, tmp_path: Path) -> None:
    zipfile.ZipFile(wheel).extractall(tmp_path)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", PROBE, str(tmp_path)], capture_output=True, text=True, cwd=tmp_path, env=environment
    )
    assert done.stdout == "imported\n", done.stderr


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An environment with the wheel, and with our dependencies but not our checkout; returns its bin folder."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder)
    python = folder / "bin" / "python"
    install = ["install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run([sys.executable, "-m", "pip", "--python", str(python), *install], check=True)
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    (Path(paths["purelib"]) / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder / "bin"


def run_installed(installed: Path, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    command = [str(installed / arguments[0]), *arguments[1:]]
    return subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment)


def test_the_command_runs_from_the_wheel(installed: Path, tmp_path: Path) -> None:
    code = "import zhiyin_cli, zhiyin.ranking.v1 as stubs; print(zhiyin_cli.__file__, stubs.__path__[0])"
    where = run_installed(installed, tmp_path, "python", "-c", code).stdout
    assert str(ROOT) not in where
    assert str(installed.parent) in where
    helped = run_installed(installed, tmp_path, "zhiyin", "--help")
    assert helped.returncode == 0, helped.stderr
    assert all(command in helped.stdout for command in ("up", "demo", "recommend", "items", "datasets"))


def test_the_demo_of_the_wheel_says_where_the_catalogue_is(installed: Path, tmp_path: Path) -> None:
    done = run_installed(installed, tmp_path, "zhiyin", "demo")
    told = " ".join(done.stderr.split())
    assert done.returncode == 1
    assert "the folder examples/catalogue of the project's source" in told
    assert "--catalogue" in told
    assert not list(tmp_path.iterdir())


def test_the_wheel_is_typed_and_carries_the_protos(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "zhiyin/ranking/v1/py.typed" in names
    assert "zhiyin_client/py.typed" in names
    assert "zhiyin_client/service_config.json" in names
    assert "zhiyin/ranking/v1/ranking_service_pb2.pyi" in names
    assert "zhiyin/protos/ranking/v1/ranking_service.proto" in names
    assert "service_runtime/migration_environment/env.py" in names
    assert "retrieval_service/store_revisions/items_0001.py" in names
    assert "ranking_service/users/store/revisions/users_0001.py" in names
    assert not any(name.startswith(("tests/", "benchmarks/", "examples/")) for name in names)


def test_everything_imports_from_the_editable_install(tmp_path: Path) -> None:
    code = "import zhiyin.ranking.v1.ranking_service_pb2_grpc as s, ranking_service as r; print(s.__file__, r.__file__)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    stubs, service = done.stdout.split()
    assert stubs.startswith(str(ROOT / "generated"))
    assert service.startswith(str(ROOT))
