"""Services as real processes on fixed ports, to be stopped and started again as an operator would."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from benchmarks.stack import free_ports

_ANSWERS_S = 60.0


class ServiceProcess:
    """`python -m MODULE` on a port of its own; `flags` as on the command line."""

    def __init__(self, module: str, folder: Path, port: int, *flags: str) -> None:
        self.address = f"127.0.0.1:{port}"
        self._log = folder / f"{module}-{port}.log"
        self._command = [sys.executable, "-m", module, "--port", str(port), "--metrics-port", "0", *flags]
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        """Returns once it is ready."""
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(self._command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        async with grpc.aio.insecure_channel(self.address) as channel, asyncio.timeout(_ANSWERS_S):
            health = health_pb2_grpc.HealthStub(channel)
            while True:
                assert self._process.poll() is None, self._log.read_text()[-3000:]
                with contextlib.suppress(grpc.aio.AioRpcError):
                    reply = await health.Check(health_pb2.HealthCheckRequest(service=""), wait_for_ready=True)
                    if reply.status == health_pb2.HealthCheckResponse.SERVING:
                        return
                await asyncio.sleep(0.05)

    async def stop(self, with_signal: int = signal.SIGTERM) -> int:
        """Returns the exit code once it has ended."""
        assert self._process is not None
        if self._process.poll() is None:
            self._process.send_signal(with_signal)
        return await asyncio.to_thread(self._process.wait, _ANSWERS_S)

    async def restart(self) -> None:
        """SIGTERM, and the same command again."""
        assert await self.stop() == 0, self._log.read_text()[-3000:]
        await self.start()

    def limit_file_size(self, limit: int | None) -> None:
        """No file may grow beyond `limit` bytes, as if the disk were full; None: as before."""
        assert self._process is not None
        _, hard = resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE)
        soft = hard if limit is None else limit
        resource.prlimit(self._process.pid, resource.RLIMIT_FSIZE, (soft, hard))

    def rss_bytes(self) -> int:
        """Resident memory."""
        assert self._process is not None
        fields = Path(f"/proc/{self._process.pid}/statm").read_text().split()
        return int(fields[1]) * os.sysconf("SC_PAGE_SIZE")

    def kill(self) -> None:
        """For clean-up: ends it whatever it does."""
        if self._process is not None and self._process.poll() is None:
            self._process.kill()
            self._process.wait()


@contextlib.asynccontextmanager
async def service_processes(
    folder: Path, encoder_address: str, *flags: str
) -> AsyncIterator[tuple[ServiceProcess, ServiceProcess]]:
    """Retrieval and ranking, ready, with an encoder that somebody else runs."""
    retrieval_port, ranking_port = free_ports(2)
    quick = ("--drain-delay-s", "0", "--grace-s", "5", *flags)
    retrieval = ServiceProcess(
        "retrieval_service",
        folder,
        retrieval_port,
        *("--data-dir", str(folder / "retrieval"), "--encoder-address", encoder_address, *quick),
        *("--snapshot-at-close-s", "0"),
    )
    ranking = ServiceProcess(
        "ranking_service",
        folder,
        ranking_port,
        *("--data-dir", str(folder / "ranking"), "--encoder-address", encoder_address),
        *("--retrieval-address", retrieval.address, *quick),
    )
    try:
        await asyncio.gather(retrieval.start(), ranking.start())
        yield retrieval, ranking
    finally:
        await asyncio.gather(
            *(p.stop() for p in (ranking, retrieval) if p._process is not None), return_exceptions=True
        )
        for process in (ranking, retrieval):
            process.kill()
