"""ONNX Runtime: the only file of this service that touches it. Chooses the provider and proves that it serves."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from encoder_service.model_directory import Precision

ProviderName = Literal["cuda", "tensorrt", "cpu"]

_EXECUTION_PROVIDERS: dict[str, str] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}
OUTPUT_NAME = "vectors"
INPUT_NAMES = ("input_ids", "attention_mask")


class BackendError(Exception):
    """The runtime or its provider is not what was asked for. The message says what to change."""


class OnnxBackend:
    """A session on one provider.

    Args:
        graph_file: The model.onnx of a model directory.
        providers: What to try, best first, such as `("cuda", "cpu")`. The first must serve unless `allow_fallback`.
        precision: Of the graph; TensorRT has to be told.
        threads: Threads inside one operator on the CPU; 0: as many as cores.
        allow_fallback: Serve on a later provider when the first cannot, instead of refusing.
        device_id: Which GPU.
        cache_dir: Where TensorRT keeps its engines; building one takes minutes.

    Raises:
        BackendError: No runtime, both runtimes, or not the provider asked for.
    """

    def __init__(
        self,
        graph_file: Path,
        providers: Sequence[ProviderName] = ("cpu",),
        *,
        precision: Precision = "fp32",
        threads: int = 0,
        allow_fallback: bool = False,
        device_id: int = 0,
        cache_dir: Path | None = None,
    ) -> None:
        check_installed_runtime()
        import onnxruntime as runtime

        self.runtime_version: str = runtime.__version__
        if providers[0] != "cpu":
            # Loads CUDA and cuDNN from their wheels. Prints and does not raise when they are missing; the check of
            # the session below is what counts.
            runtime.preload_dlls()
        self._session = _open_session(runtime, graph_file, providers, precision, threads, device_id, cache_dir)
        self.provider: str = self._session.get_providers()[0]
        wanted = _EXECUTION_PROVIDERS[providers[0]]
        if self.provider != wanted and not allow_fallback:
            raise BackendError(
                f"asked for {wanted}, and ONNX Runtime fell back to {self.provider}: the GPU, its driver or its "
                "libraries are missing (its log line above names them). Install zhiyin[gpu] on a machine with an "
                "NVIDIA driver, or put cpu first, or allow the fallback with --allow-provider-fallback"
            )
        self.dimensions = int(self._session.get_outputs()[0].shape[1])
        self._run = (
            _run_plain(self._session)
            if self.provider == _EXECUTION_PROVIDERS["cpu"]
            else run_bound(self._session, runtime.OrtValue.ortvalue_from_numpy, "cuda", device_id)
        )

    def encode(self, token_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        """See `Backend.encode`."""
        return self._run(token_ids, attention_mask)


def check_installed_runtime(installed: Callable[[str], bool] | None = None) -> None:
    """Exactly one of the two runtime packages may be installed: both fill the same folder.

    Raises:
        BackendError: None or both; says which extra to install or remove.
    """
    is_installed = installed or _is_installed
    cpu, gpu = is_installed("onnxruntime"), is_installed("onnxruntime-gpu")
    if cpu and gpu:
        raise BackendError(
            "both onnxruntime and onnxruntime-gpu are installed; they overwrite each other's files. Uninstall both and "
            "install one extra: zhiyin[cpu] or zhiyin[gpu]"
        )
    if not cpu and not gpu:
        raise BackendError("ONNX Runtime is not installed; install one extra: zhiyin[cpu], or zhiyin[gpu] for NVIDIA")


def missing_provider(provider: ProviderName) -> str | None:
    """Why the installed ONNX Runtime cannot offer a provider at all; None: it can, where the machine has the device."""
    try:
        check_installed_runtime()
        import onnxruntime as runtime
    except (BackendError, ImportError) as error:
        return str(error)
    offered = runtime.get_available_providers()
    if _EXECUTION_PROVIDERS[provider] in offered:
        return None
    return f"the installed ONNX Runtime offers {', '.join(offered)} and not {_EXECUTION_PROVIDERS[provider]}"


def _is_installed(distribution: str) -> bool:
    try:
        importlib.metadata.distribution(distribution)
    except importlib.metadata.PackageNotFoundError:
        return False
    return True


def _open_session(
    runtime: Any,
    graph_file: Path,
    providers: Sequence[ProviderName],
    precision: Precision,
    threads: int,
    device_id: int,
    cache_dir: Path | None,
) -> Any:
    available = runtime.get_available_providers()
    missing = _EXECUTION_PROVIDERS[providers[0]] not in available
    chosen = [p for p in providers if _EXECUTION_PROVIDERS[p] in available]
    if "cpu" not in chosen:
        chosen.append("cpu")  # single operators without a GPU kernel run there
    if missing:
        # The session itself would only warn; leave the decision to the check of the caller.
        chosen = [p for p in chosen if p != providers[0]]
    options = runtime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Spinning threads would take the cores from gRPC and the tokenizer between two batches.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    on_cpu = chosen[0] == "cpu"
    return runtime.InferenceSession(
        str(graph_file),
        options,
        providers=[_provider_entry(p, precision, device_id, cache_dir) for p in chosen],
        # Slower than LayerNorm + Add on the CPU in ONNX Runtime 1.32: docs/decisions, the encoder export.
        disabled_optimizers=["SkipLayerNormFusion"] if on_cpu else [],
    )


def _provider_entry(
    provider: ProviderName, precision: Precision, device_id: int, cache_dir: Path | None
) -> str | tuple[str, dict[str, Any]]:
    name = _EXECUTION_PROVIDERS[provider]
    if provider == "cuda":
        # TF32 would cost three digits of an fp32 graph; arenas grow by what is asked for, not by doubling.
        return name, {"device_id": device_id, "use_tf32": 0, "arena_extend_strategy": "kSameAsRequested"}
    if provider == "tensorrt":
        options: dict[str, Any] = {"device_id": device_id, "trt_fp16_enable": precision == "fp16"}
        if cache_dir is not None:
            options |= {"trt_engine_cache_enable": True, "trt_engine_cache_path": str(cache_dir)}
        return name, options
    return name


Run = Callable[[NDArray[np.int64], NDArray[np.int64]], NDArray[np.float32]]


def _run_plain(session: Any) -> Run:
    def run(token_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        feeds = dict(zip(INPUT_NAMES, (token_ids, attention_mask), strict=True))
        vectors: NDArray[np.float32] = session.run([OUTPUT_NAME], feeds)[0]
        return vectors

    return run


def run_bound(
    session: Any, to_device: Callable[[NDArray[np.int64], str, int], Any], device: str, device_id: int
) -> Run:
    """Runs with inputs placed on the device and one copy back: what a GPU needs.

    Args:
        session: An onnxruntime.InferenceSession.
        to_device: `OrtValue.ortvalue_from_numpy`.
        device: `cuda`, or `cpu` in tests.
        device_id: Which one.
    """

    def run(token_ids: NDArray[np.int64], attention_mask: NDArray[np.int64]) -> NDArray[np.float32]:
        binding = session.io_binding()
        for name, array in zip(INPUT_NAMES, (token_ids, attention_mask), strict=True):
            binding.bind_ortvalue_input(name, to_device(np.ascontiguousarray(array), device, device_id))
        binding.bind_output(OUTPUT_NAME, device, device_id)
        session.run_with_iobinding(binding)
        vectors: NDArray[np.float32] = binding.copy_outputs_to_cpu()[0]
        return vectors

    return run
