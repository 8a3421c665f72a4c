"""The three services as real processes for a benchmark, started the way a user starts them: `zhiyin up`."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SERVICES = ("encoder", "retrieval", "ranking")


def free_ports(count: int) -> list[int]:
    """Ports of loopback that nobody listens on at this moment."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [s.getsockname()[1] for s in sockets]
    for s in sockets:
        s.close()
    return ports


@dataclass(frozen=True)
class Stack:
    """Addresses of the running services, host:port."""

    encoder_address: str
    retrieval_address: str
    ranking_address: str
    process_id: int

    def environment(self) -> dict[str, str]:
        """Variables that make the `zhiyin` command talk to this stack."""
        return {
            **os.environ,
            "ZHIYIN_ENCODER_ADDRESS": self.encoder_address,
            "ZHIYIN_RETRIEVAL_ADDRESS": self.retrieval_address,
            "ZHIYIN_RANKING_ADDRESS": self.ranking_address,
        }

    def cli(self, *arguments: str) -> str:
        """Runs a `zhiyin` command against the stack and returns what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "zhiyin_cli", *arguments],
            env=self.environment(),
            capture_output=True,
            text=True,
        )
        if done.returncode != 0:
            raise RuntimeError(f"zhiyin {' '.join(arguments)} failed:\n{done.stdout}\n{done.stderr}")
        return done.stdout


@contextlib.contextmanager
def running_stack(data_dir: Path, model: str, *flags: str) -> Iterator[Stack]:
    """Starts `zhiyin up` on free ports, waits for its ready line, and stops it with SIGTERM.

    Raises:
        RuntimeError: It ended before it was ready; the message has its output.
    """
    command = [sys.executable, "-m", "zhiyin_cli", "up", "--data-dir", str(data_dir), "--model", model]
    ports = [word for name, port in zip(SERVICES, free_ports(3), strict=True) for word in (f"--{name}-port", str(port))]
    ports += [word for name in SERVICES for word in (f"--{name}-metrics-port", "0")]
    process = subprocess.Popen([*command, *ports, *flags], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert process.stdout is not None
    said: list[str] = []
    try:
        for line in process.stdout:
            said.append(line)
            if line.startswith("ready"):
                break
        else:
            raise RuntimeError("zhiyin up ended before it was ready:\n" + "".join(said))
        addresses = re.findall(r"[\w.\[\]:-]+:\d+", said[-1])
        # Nobody reads on: drain the pipe, or a talkative child would block on it.
        threading.Thread(target=lambda: [None for _ in process.stdout or ()], daemon=True).start()
        encoder, retrieval, ranking = addresses
        yield Stack(encoder, retrieval, ranking, process.pid)
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise RuntimeError("zhiyin up did not stop within 60 s of SIGTERM") from None
        finally:
            process.stdout.close()
