"""From a model directory to a model that has proven itself."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from encoder_service.backend import Backend
from encoder_service.classification import default_temperature
from encoder_service.model_directory import GRAPH_FILE, TOKENIZER_FILE, ModelManifest, read_parity, verify
from encoder_service.onnx_backend import OnnxBackend
from encoder_service.parity import check_serving
from encoder_service.settings import EncoderSettings
from encoder_service.tokenization import TextTokenizer
from service_runtime.telemetry import get_logger

_log = get_logger(__name__)
_CPU_BATCH_TOKENS, _GPU_BATCH_TOKENS = 512, 16_384
_QUEUE_BATCHES = 128


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to serve.

    Attributes:
        manifest: Of its directory.
        build_fingerprint: The manifest's build on this provider and runtime.
        tokenizer: Of the model.
        backend: Warm.
        max_batch_tokens: Budget of a batch.
        max_queued_tokens: Tokens that may wait.
        tokens_per_second: Measured at warm-up.
        default_temperature: For Classify, where there are no examples.
    """

    manifest: ModelManifest
    build_fingerprint: str
    tokenizer: TextTokenizer
    backend: Backend
    max_batch_tokens: int
    max_queued_tokens: int
    tokens_per_second: float
    default_temperature: float


def load_model(settings: EncoderSettings) -> LoadedModel:
    """Loads, verifies and warms the model; blocks for seconds (TensorRT: minutes at the first start).

    Raises:
        ModelDirectoryError: The directory is missing, damaged or changed.
        BackendError: No runtime, or not the provider asked for.
        ParityError: The provider computes other vectors than PyTorch did.
    """
    directory = settings.model_dir
    manifest = verify(directory)
    tokenizer = TextTokenizer(directory / TOKENIZER_FILE, manifest.max_tokens, manifest.prompts)
    backend = OnnxBackend(
        directory / GRAPH_FILE,
        settings.providers,
        precision=manifest.precision,
        threads=settings.threads,
        allow_fallback=settings.allow_provider_fallback,
        device_id=settings.device_id,
        cache_dir=settings.tensorrt_cache_dir,
    )
    parity = read_parity(directory)
    report = check_serving(tokenizer, backend, parity, manifest.pad_token_id, manifest.precision)
    on_cpu = backend.provider == "CPUExecutionProvider"
    budget = settings.max_batch_tokens or (_CPU_BATCH_TOKENS if on_cpu else _GPU_BATCH_TOKENS)
    speed = warm_up(backend, budget, manifest.max_tokens)
    _log.info(
        "model_loaded",
        model=manifest.name,
        space_fingerprint=manifest.space_fingerprint,
        provider=backend.provider,
        precision=manifest.precision,
        max_abs_difference=report.max_abs_difference,
        min_cosine=report.min_cosine,
        tokens_per_second=round(speed),
    )
    return LoadedModel(
        manifest=manifest,
        build_fingerprint=manifest.build_fingerprint(backend.provider, backend.runtime_version),
        tokenizer=tokenizer,
        backend=backend,
        max_batch_tokens=budget,
        max_queued_tokens=settings.max_queued_tokens or _QUEUE_BATCHES * budget,
        tokens_per_second=speed,
        default_temperature=default_temperature(parity.vectors),
    )


def warm_up(backend: Backend, budget: int, max_tokens: int) -> float:
    """Runs batches of the shapes to come, so that arenas and kernels are ready, and measures the speed.

    Returns:
        Tokens a second of the fastest full batch.
    """
    fastest = 0.0
    for tokens in (max_tokens, 64, 32, 16, 8):
        length = min(tokens, budget)
        shape = (max(budget // length, 1), length)
        ids, mask = np.ones(shape, dtype=np.int64), np.ones(shape, dtype=np.int64)
        for _ in range(2):
            started = time.monotonic()
            backend.encode(ids, mask)
            fastest = max(fastest, ids.size / max(time.monotonic() - started, 1e-6))
    return fastest
