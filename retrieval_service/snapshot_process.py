"""Runs the snapshot builder as a process of its own and waits for it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from retrieval_service.named_spaces import IndexKey

_POLL_S = 0.2


class SnapshotFailedError(Exception):
    """No snapshot was made; the old one, if any, is still there."""


@dataclass(frozen=True, slots=True)
class SnapshotReport:
    """What the builder did: `sequence` and `epoch` of the snapshot, live `rows` in it, `recall` of its graph, time."""

    sequence: int
    epoch: int
    rows: int
    from_scratch: bool
    recall: float | None
    seconds: float


def build_snapshot(
    database_url: str,
    key: IndexKey,
    folder: Path,
    *,
    rebuild_above: float,
    timeout_s: float,
    stop: threading.Event | None = None,
) -> SnapshotReport:
    """Makes a snapshot of one index.

    Args:
        database_url: Of the item store.
        key: Of the index.
        folder: Of its snapshots.
        rebuild_above: Share of dead rows above which the old snapshot is not built upon.
        timeout_s: After so long the builder is ended.
        stop: When set, the builder is ended.

    Raises:
        SnapshotFailedError: It failed, was ended, or took too long.
    """
    command = [sys.executable, "-m", "retrieval_service.snapshot_builder"]
    command += ["--catalog-id", str(key.catalog_id), "--space", key.space, "--version", str(key.version)]
    command += ["--folder", str(folder), "--rebuild-above", str(rebuild_above)]
    builder = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,  # its end is the builder's end: it does not outlive us
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1"},
        start_new_session=True,
    )
    assert builder.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # it ended at once: its exit code tells
        builder.stdin.write(database_url.encode() + b"\n")  # not as an argument: everybody sees those, and a password
        builder.stdin.flush()
    until = time.monotonic() + timeout_s
    while builder.poll() is None:
        if time.monotonic() >= until or (stop is not None and stop.is_set()):
            builder.kill()
            builder.wait()
            break
        time.sleep(_POLL_S / 10 if timeout_s < 60 else _POLL_S)
    builder.stdin.close()
    builder.stdin = None
    out, err = builder.communicate()
    if builder.returncode != 0:
        lines = err.decode(errors="replace").strip().splitlines()
        raise SnapshotFailedError(lines[-1] if lines else f"exit code {builder.returncode}")
    return SnapshotReport(**json.loads(out))
