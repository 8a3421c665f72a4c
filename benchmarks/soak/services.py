"""The three services as processes of which each can be stopped, killed and started again on its port."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from pathlib import Path

import psutil

from zhiyin_cli.process_group import ProcessGroup
from zhiyin_cli.stack import StackPorts, stack_services

NAMES = ("encoder", "retrieval", "ranking")
_START_S = 120.0
# Caches that are full after a minute: what grows then is no cache.
_SMALL_CACHES = {
    "ZHIYIN_ENCODER_CACHE_BYTES": str(2 << 20),
    "ZHIYIN_RANKING_LIST_STORE_BYTES": str(8 << 20),
    "ZHIYIN_RANKING_TEXT_CACHE_ENTRIES": "500",
    "ZHIYIN_RANKING_ITEM_CACHE_ENTRIES": "500",
    "ZHIYIN_RETRIEVAL_ITEM_CACHE_BYTES": str(1 << 20),
}


class Services:
    """The running services. Use as an asynchronous context.

    Args:
        data_dir: Of all three.
        model_dir: Of the encoder.
    """

    def __init__(self, data_dir: Path, model_dir: Path) -> None:
        self.ports = StackPorts.free()
        services = stack_services(data_dir, model_dir, self.ports)
        self._groups = {s.name: ProcessGroup([replace(s, environment=_SMALL_CACHES)]) for s in services}

    async def __aenter__(self) -> Services:
        try:
            for name in NAMES:
                await asyncio.to_thread(self._start, name)
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Stops all, callers first."""
        for name in reversed(NAMES):
            await asyncio.to_thread(self._groups[name].stop)

    async def restart(self, name: str, *, kill: bool) -> float:
        """Ends a service, by SIGTERM or at once, and starts it again; returns the seconds it was away."""
        began = time.monotonic()
        await asyncio.to_thread(self._groups[name].stop, lambda: kill)
        await asyncio.to_thread(self._start, name)
        return time.monotonic() - began

    def memory_mib(self) -> dict[str, float]:
        """Resident memory of each service with its workers, in MiB."""
        found = {}
        for name, group in self._groups.items():
            total = 0
            for root in group.process_ids():
                for process in _tree(root):
                    try:
                        total += process.memory_info().rss
                    except psutil.NoSuchProcess:
                        continue
            found[name] = total / (1 << 20)
        return found

    def _start(self, name: str) -> None:
        self._groups[name].start()
        self._groups[name].wait_until_serving(_START_S)


def _tree(process_id: int) -> list[psutil.Process]:
    try:
        process = psutil.Process(process_id)
        return [process, *process.children(recursive=True)]
    except psutil.NoSuchProcess:
        return []
