"""Starts an index worker and speaks with it. Blocking: searches and writes run in threads of the service.

A thread costs an asyncio service one hop a request and spares it a second event-loop protocol; a worker behind a
socket measured no slower than an index in the process.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from retrieval_service import frames
from retrieval_service.frames import Array, Header

_START_TIMEOUT_S = 30.0


class WorkerGoneError(Exception):
    """The worker died, hung or never started; the call may be tried on its successor."""


class WorkerFailedError(Exception):
    """The worker answered with an error of its own. `kind` says which."""

    def __init__(self, kind: str, message: str) -> None:
        self.kind = kind
        super().__init__(f"{kind}: {message}")


class IndexWorkerProcess:
    """One worker process and connections to it. Safe for threads: each call has a connection of its own."""

    def __init__(self) -> None:
        # Not in the data folder: a socket's path may have 107 bytes at most.
        self._folder = Path(tempfile.mkdtemp(prefix="zhiyin-index-"))
        self._socket_path = str(self._folder / "worker.sock")
        self._idle: list[socket.socket] = []
        self._lock = threading.Lock()
        self._answered = threading.Condition()
        self._busy = 0
        self._closed = False
        environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "retrieval_service.index_worker", "--socket", self._socket_path],
            stdin=subprocess.PIPE,
            env=environment,
            # A terminal's Ctrl-C goes to the whole group: the service stops its worker itself, after the last write.
            start_new_session=True,
        )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.close()
            raise

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def call(
        self, header: Header, arrays: Sequence[Array] = (), *, timeout_s: float | None = None
    ) -> tuple[Header, list[Array]]:
        """Sends one frame and waits for its answer.

        Args:
            header: The operation.
            arrays: Its arrays.
            timeout_s: None: as long as it takes.

        Raises:
            WorkerGoneError: The worker went away.
            WorkerFailedError: The worker refused.
            TimeoutError: No answer in time; the worker may be busy.
        """
        with self._answered:
            self._busy += 1
        try:
            reply, results = self._exchange(header, arrays, timeout_s)
        finally:
            with self._answered:
                self._busy -= 1
                self._answered.notify_all()
        if "error" in reply:
            raise WorkerFailedError(reply["error"], reply["message"])
        return reply, results

    def _exchange(self, header: Header, arrays: Sequence[Array], timeout_s: float | None) -> tuple[Header, list[Array]]:
        connection = self._take()
        try:
            connection.settimeout(timeout_s)
            frames.send(connection, header, arrays)
            reply, results = frames.receive(connection)
        except (frames.ConnectionLostError, OSError) as error:
            connection.close()  # an answer that comes late must not meet the next question
            if isinstance(error, TimeoutError):
                raise
            raise WorkerGoneError(f"the index worker went away: {error}") from None
        except BaseException:
            connection.close()
            raise
        with self._lock:
            if self._closed:
                connection.close()
            else:
                self._idle.append(connection)
        return reply, results

    def kill(self) -> None:
        """Ends a process that hangs."""
        self._process.kill()

    def drain(self, timeout_s: float = 5.0) -> None:
        """Waits until the calls under way have their answers."""
        with self._answered:
            self._answered.wait_for(lambda: self._busy == 0, timeout_s)

    def wait(self, timeout_s: float) -> int | None:
        """Waits for the process to end; returns its code, or None when it runs on."""
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def close(self) -> None:
        """Ends the process and takes its socket away. Safe to call twice."""
        with self._lock:
            self._closed = True
            idle, self._idle = self._idle, []
        for connection in idle:
            connection.close()
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)

    def _take(self) -> socket.socket:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.connect(self._socket_path)
        except OSError as error:
            connection.close()
            raise WorkerGoneError(f"the index worker does not listen: {error}") from None
        return connection

    def _wait_until_it_answers(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        while True:
            try:
                self.call({"op": "ping"}, timeout_s=_START_TIMEOUT_S)
                return
            except WorkerGoneError:
                if not self.alive or time.monotonic() > deadline:
                    code = self._process.poll()
                    raise WorkerGoneError(f"the index worker did not start (exit code {code})") from None
                time.sleep(0.02)
