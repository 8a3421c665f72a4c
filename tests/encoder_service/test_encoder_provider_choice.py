"""Which provider serves, up to the GPU itself: choice, refusal of a silent fallback, input and output binding."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from encoder_service.backend import pad
from encoder_service.model_directory import GRAPH_FILE
from encoder_service.onnx_backend import BackendError, OnnxBackend, check_installed_runtime, run_bound

ROWS = [[101, 2770, 6007, 102], [101, 3899, 102]]


class FakeRuntime(SimpleNamespace):
    """onnxruntime as a machine with or without a working GPU shows it."""

    def __init__(self, available: list[str], working: list[str]) -> None:
        super().__init__(__version__="9.9", opened=[], preloaded=0)
        self.available, self.working = available, working
        self.SessionOptions = lambda: SimpleNamespace(add_session_config_entry=lambda key, value: None)
        self.OrtValue = SimpleNamespace(ortvalue_from_numpy=lambda array, device, device_id: (array, device, device_id))

    def preload_dlls(self) -> None:
        self.preloaded += 1

    def get_available_providers(self) -> list[str]:
        return self.available

    def InferenceSession(self, path: str, options: Any, providers: list[Any], disabled_optimizers: list[str]) -> Any:
        names = [entry if isinstance(entry, str) else entry[0] for entry in providers]
        self.opened.append((providers, disabled_optimizers))
        session = FakeSession([name for name in names if name in self.working])
        self.session = session
        return session


class FakeSession:
    """Falls back in silence, as the real one does; computes the sum of the ids."""

    def __init__(self, providers: list[str]) -> None:
        self._providers = providers
        self.bound: dict[str, Any] = {}

    def get_providers(self) -> list[str]:
        return self._providers

    def get_outputs(self) -> list[Any]:
        return [SimpleNamespace(shape=["texts", 1])]

    def io_binding(self) -> Any:
        return SimpleNamespace(
            bind_ortvalue_input=lambda name, value: self.bound.__setitem__(name, value),
            bind_output=lambda name, device, device_id: self.bound.__setitem__(name, (device, device_id)),
            copy_outputs_to_cpu=lambda: [self.bound["input_ids"][0].sum(axis=1, keepdims=True).astype(np.float32)],
        )

    def run_with_iobinding(self, binding: Any) -> None:
        assert {"input_ids", "attention_mask", "vectors"} == self.bound.keys()


CUDA, TENSORRT, CPU = "CUDAExecutionProvider", "TensorrtExecutionProvider", "CPUExecutionProvider"


@pytest.fixture
def runtime(monkeypatch: pytest.MonkeyPatch):
    def install(available: list[str], working: list[str]) -> FakeRuntime:
        fake = FakeRuntime(available, working)
        monkeypatch.setitem(__import__("sys").modules, "onnxruntime", fake)
        return fake

    return install


def test_a_working_gpu_serves_with_its_inputs_on_the_device(runtime) -> None:
    fake = runtime([TENSORRT, CUDA, CPU], [CUDA, CPU])
    backend = OnnxBackend(Path("model.onnx"), ("cuda", "cpu"), device_id=1)
    assert backend.provider == CUDA
    assert fake.preloaded == 1, "the libraries of the wheels are loaded before the session"
    ids, mask = pad(ROWS, 0)
    np.testing.assert_array_equal(backend.encode(ids, mask)[:, 0], ids.sum(axis=1))
    assert fake.session.bound["input_ids"][1:] == ("cuda", 1)
    assert fake.session.bound["attention_mask"][1:] == ("cuda", 1)
    assert fake.session.bound["vectors"] == ("cuda", 1)
    providers, disabled = fake.opened[0]
    assert providers[0][0] == CUDA
    assert providers[0][1]["device_id"] == 1
    assert disabled == [], "the fusions that slow the CPU down belong to the GPU"


def test_a_silent_fallback_is_an_error_that_says_what_to_do(runtime) -> None:
    runtime([CUDA, CPU], [CPU])  # listed, for the package is there, and yet without its libraries
    with pytest.raises(BackendError, match=r"fell back to CPUExecutionProvider.*zhiyin\[gpu\]"):
        OnnxBackend(Path("model.onnx"), ("cuda", "cpu"))


def test_the_fallback_serves_when_it_is_allowed(runtime) -> None:
    runtime([CUDA, CPU], [CPU])
    assert OnnxBackend(Path("model.onnx"), ("cuda", "cpu"), allow_fallback=True).provider == CPU


def test_tensorrt_falls_through_to_cuda_only_when_allowed(runtime, tmp_path: Path) -> None:
    fake = runtime([TENSORRT, CUDA, CPU], [CUDA, CPU])
    with pytest.raises(BackendError, match="TensorrtExecutionProvider"):
        OnnxBackend(Path("model.onnx"), ("tensorrt", "cuda"))
    backend = OnnxBackend(Path("model.onnx"), ("tensorrt", "cuda"), allow_fallback=True, cache_dir=tmp_path)
    assert backend.provider == CUDA
    assert fake.opened[-1][0][0][1]["trt_engine_cache_path"] == str(tmp_path)


def test_a_machine_without_gpu_refuses_cuda(minilm_model_dir: Path) -> None:
    import onnxruntime

    if CUDA in onnxruntime.get_available_providers():
        pytest.skip("this machine has the GPU build")
    with pytest.raises(BackendError, match="asked for CUDAExecutionProvider"):
        OnnxBackend(minilm_model_dir / GRAPH_FILE, ("cuda", "cpu"))


def test_binding_computes_what_a_plain_run_computes(minilm_model_dir: Path) -> None:
    """The code path of the GPU, on the CPU: the same session, inputs and output bound to a device."""
    import onnxruntime

    backend = OnnxBackend(minilm_model_dir / GRAPH_FILE)
    session = onnxruntime.InferenceSession(
        str(minilm_model_dir / GRAPH_FILE), providers=[CPU], disabled_optimizers=["SkipLayerNormFusion"]
    )
    bound = run_bound(session, onnxruntime.OrtValue.ortvalue_from_numpy, "cpu", 0)
    for rows in (ROWS, ROWS[:1], ROWS * 3):
        np.testing.assert_allclose(bound(*pad(rows, 0)), backend.encode(*pad(rows, 0)), atol=1e-6)


@pytest.mark.parametrize(
    ("installed", "told"),
    [
        (set(), r"zhiyin\[cpu\], or zhiyin\[gpu\]"),
        ({"onnxruntime", "onnxruntime-gpu"}, "both onnxruntime and onnxruntime-gpu"),
    ],
)
def test_none_and_both_runtimes_are_refused(installed: set[str], told: str) -> None:
    with pytest.raises(BackendError, match=told):
        check_installed_runtime(installed.__contains__)


@pytest.mark.parametrize("installed", ["onnxruntime", "onnxruntime-gpu"])
def test_either_runtime_alone_is_fine(installed: str) -> None:
    check_installed_runtime({installed}.__contains__)
