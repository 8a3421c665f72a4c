"""Runs several server processes as one: started together, watched together, stopped in reverse order.

Each child gets a session of its own, so that Ctrl-C in the terminal reaches only this process, which then stops the
children one after another. Each has a pipe from this process as standard input: when this one is killed, the pipe ends,
and a child that watches it (`--exit-with-parent`) stops too.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

_LOG_TAIL_LINES = 12
_HEALTH_DEADLINE_S = 1.0
_POLL_S = 0.1


class ProcessGroupFailed(Exception):
    """A port is taken, a process ended, or one did not become ready; the message names it."""


@dataclass(frozen=True)
class ServiceProcess:
    """One process: what to run and where it will answer."""

    name: str
    argv: Sequence[str]
    host: str
    port: int
    log_file: Path
    environment: Mapping[str, str] = field(default_factory=dict)

    @property
    def address(self) -> str:
        """Host and port for a client."""
        return f"{self.host}:{self.port}"


class ProcessGroup:
    """The running processes. Use as a context: leaving it stops them all."""

    def __init__(self, services: Sequence[ServiceProcess], stop_grace_s: float = 30.0) -> None:
        self._services = services
        self._stop_grace_s = stop_grace_s
        self._running: list[tuple[ServiceProcess, subprocess.Popen[bytes]]] = []

    def __enter__(self) -> ProcessGroup:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts every process. Raises ProcessGroupFailed, before any is started, when a port is taken."""
        for service in self._services:
            _require_free_port(service)
        for service in self._services:
            service.log_file.parent.mkdir(parents=True, exist_ok=True)
            with service.log_file.open("ab") as log:
                process = subprocess.Popen(
                    service.argv,
                    stdin=subprocess.PIPE,
                    stdout=log,
                    stderr=subprocess.STDOUT,
                    env={**os.environ, **service.environment},
                    start_new_session=True,
                )
            self._running.append((service, process))

    def wait_until_serving(self, timeout_s: float, interrupted: Callable[[], bool] = lambda: False) -> bool:
        """Waits until each process says SERVING; False when `interrupted` became true. Raises ProcessGroupFailed."""
        give_up_at = time.monotonic() + timeout_s
        for service in self._services:
            while not is_serving(service.address):
                self.require_alive()
                if interrupted():
                    return False
                if time.monotonic() > give_up_at:
                    raise ProcessGroupFailed(
                        f"{service.name} was not ready after {timeout_s:.0f} s; "
                        f"the end of {service.log_file}:\n{_log_tail(service)}"
                    )
                time.sleep(_POLL_S)
        self.require_alive()
        return True

    def process_ids(self) -> list[int]:
        """Of the processes that were started and not stopped."""
        return [process.pid for _, process in self._running]

    def require_alive(self) -> None:
        """Raises ProcessGroupFailed, with the end of its log, when a process has ended."""
        for service, process in self._running:
            if (code := process.poll()) is not None:
                raise ProcessGroupFailed(
                    f"{service.name} ended with code {code}; the end of {service.log_file}:\n{_log_tail(service)}"
                )

    def stop(self, at_once: Callable[[], bool] = lambda: False) -> None:
        """Stops the processes, callers before those they call.

        Kills what ignores SIGTERM for too long, and everything once `at_once` says so.
        """
        while self._running:
            _, process = self._running.pop()
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            give_up_at = time.monotonic() + self._stop_grace_s
            while process.poll() is None:
                if at_once() or time.monotonic() > give_up_at:
                    process.kill()
                    process.wait()
                    break
                time.sleep(_POLL_S / 2)
            if process.stdin is not None:
                process.stdin.close()


def is_serving(address: str) -> bool:
    """Whether the health service at `address` says SERVING for the whole server."""
    with grpc.insecure_channel(address) as channel:
        try:
            answer = health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service=""), timeout=_HEALTH_DEADLINE_S
            )
        except grpc.RpcError:
            return False
    return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)


def free_port(host: str = "127.0.0.1") -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def _require_free_port(service: ServiceProcess) -> None:
    # gRPC shares ports by SO_REUSEPORT, so that a second server would start and get half of the calls: ask before.
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((service.host, service.port))
        except OSError as exc:
            raise ProcessGroupFailed(
                f"port {service.port} for {service.name} is taken ({exc.strerror}); "
                "stop what runs there or choose another port"
            ) from exc


def _log_tail(service: ServiceProcess) -> str:
    try:
        lines = service.log_file.read_text(errors="replace").splitlines()
    except OSError:
        return "  (no log)"
    return "\n".join(f"  {line}" for line in lines[-_LOG_TAIL_LINES:]) or "  (empty)"
