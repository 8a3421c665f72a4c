"""How many calls come in at once, how many wait, and what the others are told.

Past the point where a server is busy all the time, more calls at once make each slower until none is in time. So a
door lets a fixed number in, lets others wait only while the wait is short, and refuses the rest before any work is
spent on them. The wait is estimated from what waits and the measured time between two calls that end, W = L / lambda
(Little 1961, "A proof for the queuing formula"); when the one who has waited longest shows that the estimate is wrong,
its real wait counts instead, as in CoDel (Nichols and Jacobson 2012, "Controlling Queue Delay").

A refusal says when to come back: after the time in which the whole crowd that was refused lately can be served. However
many callers there are, those that wait as told come back at the rate that can be served.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import random
import time
from collections import deque
from collections.abc import AsyncIterator, Callable

from service_runtime.errors import Overloaded

_SMOOTHING = 0.1
_SHORTEST_HINT_S, _LONGEST_HINT_S = 0.05, 10.0
_MAX_WAITING = 1_000  # while nothing is measured yet


def _smoothed(known: float, seen: float) -> float:
    return seen if known == 0 else known + _SMOOTHING * (seen - known)


def usable_cores() -> int:
    """Cores that this process may use: fewer than the machine has when it is pinned to some."""
    return len(os.sched_getaffinity(0))


class Crowd:
    """Those who were refused and will come back, estimated; says when they should.

    Args:
        clock: Monotonic seconds.
        jitter: A factor around 1, new each time, so that a crowd does not come back as one.
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = lambda: random.uniform(0.75, 1.25),
    ) -> None:
        self._clock, self._jitter = clock, jitter
        self._size = 0.0
        self._counted_at = clock()
        self._hint_s = _SHORTEST_HINT_S

    def refuse(self, what: str, ahead_s: float, interval_s: float) -> Overloaded:
        """The refusal of one more.

        Args:
            what: Is full.
            ahead_s: Until those who wait already are served.
            interval_s: From one that is served to the next.
        """
        now = self._clock()
        # Who was refused comes back after a hint's time and is counted again then.
        self._size = self._size * math.exp((self._counted_at - now) / self._hint_s) + 1
        self._counted_at = now
        self._hint_s = min(max(ahead_s + self._size * interval_s, _SHORTEST_HINT_S), _LONGEST_HINT_S)
        return Overloaded(what, float(f"{self._hint_s * self._jitter():.2g}"))


class Door:
    """Lets calls in. Used from one event loop.

    Args:
        what: Is full when it is, for the caller.
        at_once: Calls inside; so many that more would not be faster.
        max_wait_s: Longest wait of a call that is let in later.
        clock: Monotonic seconds.
    """

    def __init__(self, what: str, at_once: int, max_wait_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._at_once, self._max_wait_s, self._clock = what, at_once, max_wait_s, clock
        self._inside = 0
        self._waiting: deque[tuple[asyncio.Future[None], float]] = deque()
        self._returning: deque[asyncio.Future[None]] = deque()
        self._busy_interval_s = 0.0
        self._served_s = 0.0
        self._busy_since_end_at: float | None = None
        self._crowd = Crowd(clock)

    @property
    def inside(self) -> int:
        """Calls that were let in and have not left."""
        return self._inside

    @property
    def waiting(self) -> int:
        """Calls that wait for their first or second time inside."""
        return len(self._waiting) + len(self._returning)

    def refusal(self, remaining_s: float = math.inf) -> Overloaded | None:
        """Why a call that comes now would be turned away, given what its deadline leaves; None: it would not."""
        if self._inside < self._at_once:
            return None
        wait_s = self.waiting * self._interval_s
        if self._waiting:
            wait_s = max(wait_s, self._clock() - self._waiting[0][1])
        # Inside it shares the time with as many others as there may be.
        served_s = wait_s + self._at_once * self._interval_s
        if wait_s <= self._max_wait_s and served_s <= remaining_s and self.waiting < _MAX_WAITING:
            return None
        return self._crowd.refuse(self._what, wait_s, self._interval_s)

    async def enter(self, remaining_s: float) -> None:
        """Waits for a place inside; `leave` gives it back.

        Raises:
            Overloaded: The wait would be too long, or has been.
        """
        if self._inside < self._at_once:
            self._inside += 1
            return
        refused = self.refusal(remaining_s)
        if refused is not None:
            raise refused
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        came_at = self._clock()
        entry = (place, came_at)
        self._waiting.append(entry)
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._hand_over()
            elif entry in self._waiting:
                self._waiting.remove(entry)
            raise
        if self._clock() - came_at + self._at_once * self._interval_s > remaining_s:
            self._hand_over()
            raise self._crowd.refuse(self._what, self.waiting * self._interval_s, self._interval_s)

    def leave(self, inside_s: float) -> None:
        """The call has ended, `inside_s` after it was let in."""
        now = self._clock()
        self._served_s = _smoothed(self._served_s, inside_s)
        if self._busy_since_end_at is not None:
            self._busy_interval_s = _smoothed(self._busy_interval_s, now - self._busy_since_end_at)
        # Only while somebody waits does the time until the next end tell how fast calls are served.
        self._busy_since_end_at = now if self.waiting else None
        self._hand_over()

    @contextlib.asynccontextmanager
    async def outside(self) -> AsyncIterator[None]:
        """Around a wait for somebody else, of a call that is inside: its place goes to another meanwhile.

        So calls that wait for a neighbour that hangs do not keep out those who do not need it. Afterwards the call gets
        the next place that is free, before all that come from the street.
        """
        self._hand_over()
        try:
            yield
        finally:
            await self._return()

    async def _return(self) -> None:
        if self._inside < self._at_once:
            self._inside += 1
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._returning.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place in self._returning:
                self._returning.remove(place)
                self._inside += 1  # it leaves now, and whoever leaves gives a place back
            raise

    @property
    def _interval_s(self) -> float:
        """Between two calls that end while the door is busy; before that was seen, as if all ran side by side."""
        return self._busy_interval_s or self._served_s / self._at_once

    def _hand_over(self) -> None:
        """The place goes to one who returns, else to the one who has waited longest, else it is free."""
        while self.waiting and self._inside <= self._at_once:
            place = self._returning.popleft() if self._returning else self._waiting.popleft()[0]
            if not place.done():
                place.set_result(None)
                return
        self._inside -= 1
