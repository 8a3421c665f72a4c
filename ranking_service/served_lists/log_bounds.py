"""How much the log of served lists may take."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LogBounds:
    """What the log may take.

    Attributes:
        queue_bytes: Memory of lists that wait to be written.
        memory_bytes: Memory of pages kept for the first minutes.
        memory_s: Seconds that they are kept there.
        store_s: Seconds that pages of stored users are kept on disk; 0: none is.
        store_bytes: Bytes of these.
    """

    queue_bytes: int = 64 << 20
    memory_bytes: int = 32 << 20
    memory_s: float = 900.0
    store_s: float = 7 * 86_400.0
    store_bytes: int = 1 << 30
