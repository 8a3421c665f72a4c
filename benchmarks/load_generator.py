"""A process that only calls: `python -m benchmarks.load_generator < spec.json`; prints what came of it as JSON.

It stands for callers on other machines, so it has to be cheap: requests leave as bytes, answers are not read beyond
their status. Latencies in seconds. Modes:

- closed: `clients` callers, each calling again as soon as it has its answer.
- told: the same, but one that is refused waits as long as it was told.
- blind: `rate` calls a second whatever happens, each made once.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import uvloop

from zhiyin.common.v1 import embedding_pb2, item_pb2
from zhiyin.encoder.v1 import encoder_service_pb2 as encoder_pb
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval_pb

_WORDS = [
    "film",
    "song",
    "travel",
    "course",
    "game",
    "news",
    "shoe",
    "video",
    "post",
    "book",
    "red",
    "blue",
    "green",
    "amber",
    "violet",
    "black",
    "white",
    "grey",
]


@dataclasses.dataclass(frozen=True)
class Load:
    """What to do.

    Attributes:
        address: host:port.
        door: Which call, a key of `DOORS`.
        mode: See above.
        clients: Of the modes closed and told.
        rate: Of the mode blind, calls a second.
        warm_up_s: Not counted.
        seconds: Counted.
        deadline_s: Of each call; an answer counts within it.
        dimensions: Of query vectors.
        users: Ids of users for whom lists are made.
        items: Ids of items that events name.
        cores: Where the process may run; empty: anywhere.
    """

    address: str
    door: str
    mode: str
    clients: int = 1
    rate: float = 0.0
    warm_up_s: float = 1.0
    seconds: float = 4.0
    deadline_s: float = 1.0
    dimensions: int = 384
    users: tuple[str, ...] = ()
    items: tuple[str, ...] = ()
    cores: tuple[int, ...] = ()


def _text(draw: random.Random) -> str:
    return " ".join(draw.choices(_WORDS, k=8)) + f" {draw.getrandbits(40)}"


def _embed(_: Load, draw: random.Random) -> bytes:
    return encoder_pb.EmbedRequest(texts=[_text(draw) for _ in range(4)]).SerializeToString()


def _search(load: Load, draw: random.Random) -> bytes:
    request = retrieval_pb.SearchRequest(catalog="default", vectors_space="semantic")
    numbers = np.random.default_rng(draw.getrandbits(32))
    for i in range(3):
        vector = numbers.standard_normal(load.dimensions).astype("<f4").tobytes()
        request.queries.add(
            name=str(i),
            limit=100,
            vector=embedding_pb2.Embedding(
                data=vector, dtype=embedding_pb2.VECTOR_DTYPE_FLOAT32, dimensions=load.dimensions
            ),
        )
    return request.SerializeToString()


def _upsert(_: Load, draw: random.Random) -> bytes:
    items = [item_pb2.Item(id=f"load-{draw.randrange(2000)}", title=_text(draw)) for _ in range(8)]
    unique = {item.id: item for item in items}
    return retrieval_pb.UpsertItemsRequest(catalog="default", items=unique.values()).SerializeToString()


def _recommend(load: Load, draw: random.Random) -> bytes:
    return ranking_pb.RecommendRequest(catalog="default", user_id=draw.choice(load.users)).SerializeToString()


def _record(load: Load, draw: random.Random) -> bytes:
    events = [
        ranking_pb.Event(
            user_id=f"load-{draw.randrange(5000)}",
            type=ranking_pb.EVENT_TYPE_LIKE,
            item_id=draw.choice(load.items),
            event_id=f"{draw.getrandbits(64):x}",
        )
        for _ in range(20)
    ]
    return ranking_pb.RecordEventsRequest(catalog="default", events=events).SerializeToString()


DOORS: dict[str, tuple[str, Callable[[Load, random.Random], bytes]]] = {
    "Embed": ("/zhiyin.encoder.v1.EncoderService/Embed", _embed),
    "Search": ("/zhiyin.retrieval.v1.RetrievalService/Search", _search),
    "UpsertItems": ("/zhiyin.retrieval.v1.RetrievalService/UpsertItems", _upsert),
    "Recommend": ("/zhiyin.ranking.v1.RankingService/Recommend", _recommend),
    "RecordEvents": ("/zhiyin.ranking.v1.RankingService/RecordEvents", _record),
}


class _Run:
    """Calls and counts."""

    def __init__(self, load: Load, channel: grpc.aio.Channel) -> None:
        method, self._make = DOORS[load.door]
        self._load = load
        self._call: Callable[..., Any] = channel.unary_unary(method)
        self._draw = random.Random(os.getpid() * 1_000_003 + time.time_ns())
        self.start = time.monotonic() + load.warm_up_s
        self.end = self.start + load.seconds
        self.answers: Counter[str] = Counter()
        self.untold = 0
        self.late: list[float] = []
        self.latencies: dict[str, list[float]] = {}
        # Made beforehand: what a request costs its caller is not what is measured.
        self._requests = [self._make(load, self._draw) for _ in range(2000)]

    async def one(self) -> float | None:
        """A call; how long to wait when refused, None when not."""
        request = self._requests.pop() if self._requests else self._make(self._load, self._draw)
        began = time.monotonic()
        code, wait_s = "OK", None
        try:
            await self._call(request, timeout=self._load.deadline_s)
        except grpc.aio.AioRpcError as error:
            code = error.code().name
            if code == "RESOURCE_EXHAUSTED":
                told = dict(error.trailing_metadata() or ()).get("grpc-retry-pushback-ms")
                self.untold += told is None or "grpc-status-details-bin" not in dict(error.trailing_metadata() or ())
                wait_s = int(told) / 1000 if told is not None else 0.1
        ended = time.monotonic()
        if self.start <= ended < self.end:
            self.answers[code] += 1
            self.latencies.setdefault(code, []).append(ended - began)
        return wait_s

    async def caller(self, told: bool) -> None:
        await asyncio.sleep(random.random() * min(self._load.warm_up_s, 1.0))
        while time.monotonic() < self.end:
            wait_s = await self.one()
            if told and wait_s is not None:
                await asyncio.sleep(wait_s)

    async def blind(self) -> None:
        pending: set[asyncio.Task[float | None]] = set()
        due = time.monotonic()
        while due < self.end:
            due += self._draw.expovariate(self._load.rate)
            if (early := due - time.monotonic()) > 0.001:
                await asyncio.sleep(early)
            if due >= self.start:
                self.late.append(max(-early, 0.0))
            task = asyncio.create_task(self.one())
            pending.add(task)
            task.add_done_callback(pending.discard)
        await asyncio.gather(*pending)


async def _generate(load: Load) -> dict[str, Any]:
    options = [("grpc.enable_retries", 0), ("grpc.max_receive_message_length", 64 << 20)]
    async with grpc.aio.insecure_channel(load.address, options) as channel:
        await channel.channel_ready()
        run = _Run(load, channel)
        run.start = time.monotonic() + load.warm_up_s
        run.end = run.start + load.seconds
        if load.mode == "blind":
            await run.blind()
        else:
            await asyncio.gather(*(run.caller(load.mode == "told") for _ in range(load.clients)))
    quantiles = {
        code: {"p50": float(np.quantile(taken, 0.5)), "p99": float(np.quantile(taken, 0.99))}
        for code, taken in run.latencies.items()
    }
    # Of calls that were due: more than some milliseconds mean that the callers had no time, whatever the server had.
    late_s = float(np.quantile(run.late, 0.99)) if run.late else 0.0
    counted = {"answers": dict(run.answers), "untold": run.untold, "late_p99_s": late_s}
    return {**counted, "latency_s": quantiles, "seconds": load.seconds}


def main() -> None:
    """Reads a Load, writes the counts."""
    spec: dict[str, Any] = json.load(sys.stdin)
    load = Load(**{**spec, "users": tuple(spec["users"]), "items": tuple(spec["items"])})
    if load.cores:
        os.sched_setaffinity(0, load.cores)
    json.dump(uvloop.run(_generate(load)), sys.stdout)


if __name__ == "__main__":
    main()
