"""Where a training stands, in a file that a killed one goes on from."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from service_runtime.durable_files import sync


class Checkpoint:
    """The file of one training.

    Args:
        path: None: nothing is kept.
        fingerprint: Of everything that decides the training's course; a file of another is ignored.
    """

    def __init__(self, path: Path | None, fingerprint: str) -> None:
        self._path, self._fingerprint = path, fingerprint

    def load(self) -> dict[str, Any] | None:
        """What was saved last; None: nothing of this training."""
        if self._path is None or not self._path.exists():
            return None
        state: dict[str, Any] = torch.load(self._path, map_location="cpu", weights_only=True)
        return state if state["fingerprint"] == self._fingerprint else None

    def save(self, state: dict[str, Any]) -> None:
        """Replaces the file at once: a kill leaves the old one or the new one."""
        if self._path is None:
            return
        beside = self._path.with_name(self._path.name + ".new")
        torch.save({**state, "fingerprint": self._fingerprint}, beside)
        sync(beside)
        beside.replace(self._path)
        sync(self._path.parent)
