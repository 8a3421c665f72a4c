"""Processes started, watched and stopped together: with small real servers."""

from __future__ import annotations

import os
import signal
import socket
import sys
import textwrap
import time
from pathlib import Path

import pytest

from zhiyin_cli.process_group import ProcessGroup, ProcessGroupFailed, ServiceProcess, free_port, is_serving

_SERVER = textwrap.dedent(
    """
    import signal, sys
    from concurrent.futures import ThreadPoolExecutor
    import grpc
    from grpc_health.v1 import health, health_pb2, health_pb2_grpc

    server = grpc.server(ThreadPoolExecutor(2))
    servicer = health.HealthServicer()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    server.add_insecure_port(f"127.0.0.1:{sys.argv[1]}")
    server.start()
    signal.signal(signal.SIGTERM, lambda *_: (print(sys.argv[2], flush=True), server.stop(0), sys.exit(0)))
    signal.pause()
    """
)


def _server(name: str, folder: Path, code: str = _SERVER) -> ServiceProcess:
    port = free_port()
    return ServiceProcess(
        name, [sys.executable, "-c", code, str(port), f"{name} stopped"], "127.0.0.1", port, folder / f"{name}.log"
    )


def test_servers_serve_together_and_stop_together(tmp_path: Path) -> None:
    services = [_server("first", tmp_path), _server("second", tmp_path)]
    with ProcessGroup(services) as group:
        assert group.wait_until_serving(60)
        assert all(is_serving(service.address) for service in services)
    assert not any(is_serving(service.address) for service in services)
    assert [service.log_file.read_text().strip() for service in services] == ["first stopped", "second stopped"]


def test_a_taken_port_is_named_before_anything_starts(tmp_path: Path) -> None:
    free, taken = _server("free", tmp_path), _server("taken", tmp_path)
    with socket.socket() as other:
        other.bind((taken.host, taken.port))
        other.listen()
        with pytest.raises(ProcessGroupFailed, match=f"port {taken.port} for taken is taken"):
            ProcessGroup([free, taken]).start()
    assert not free.log_file.exists()


def test_a_server_that_dies_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    broken = _server("broken", tmp_path, "import sys; print('the model is missing'); sys.exit(3)")
    with (
        pytest.raises(ProcessGroupFailed, match=r"(?s)broken ended with code 3.*the model is missing"),
        ProcessGroup([broken]) as group,
    ):
        group.wait_until_serving(60)


def test_a_server_that_never_gets_ready_is_named(tmp_path: Path) -> None:
    silent = _server("silent", tmp_path, "import signal; signal.pause()")
    with pytest.raises(ProcessGroupFailed, match="silent was not ready"), ProcessGroup([silent]) as group:
        group.wait_until_serving(0.2)


def test_what_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    code = "import signal, os; signal.signal(15, signal.SIG_IGN); print(os.getpid(), flush=True); signal.pause()"
    stubborn = _server("stubborn", tmp_path, code)
    group = ProcessGroup([stubborn], stop_grace_s=0.2)
    group.start()
    while not stubborn.log_file.read_text():
        time.sleep(0.02)
    process_id = int(stubborn.log_file.read_text())
    group.stop()
    with pytest.raises(ProcessLookupError):
        os.kill(process_id, signal.SIGCONT)
