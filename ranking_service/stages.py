"""What happens beside the list: where the time went and what had to be left out."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ranking_service import metrics


@dataclass(frozen=True, slots=True)
class Degradation:
    """Something that is missing from a list.

    Attributes:
        component: The part, such as `source:profile` or `dependency:encoder`.
        reason: Stable: `UNAVAILABLE`, `DEADLINE`, `MODEL_MISMATCH`, `FAILED`.
        message: For people.
    """

    component: str
    reason: str
    message: str


@dataclass(slots=True)
class Journal:
    """The record of one request, in the order things happened."""

    timings: list[tuple[str, float]] = field(default_factory=list)
    degraded: list[Degradation] = field(default_factory=list)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage, also when it fails."""
        began = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - began
            self.timings.append((name, seconds))
            metrics.STAGE_SECONDS.labels(name).observe(seconds)

    def degrade(self, component: str, reason: str, message: str) -> None:
        """Notes what the list has to do without; each component once."""
        if all(known.component != component for known in self.degraded):
            self.degraded.append(Degradation(component, reason, message))
            metrics.DEGRADED.labels(component, reason).inc()
