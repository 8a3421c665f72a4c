"""What to send next and what an answer means, until each row is either accepted or rejected with a reason.

The server takes a batch whole or not at all. When it refuses one:
- a temporary refusal (queue full, a service down) is tried again after the hint the server gave;
- violations that name rows (`items[3].title`) reject these rows, and the rest of the batch is sent again;
- any other fault of the data is found by halving the batch until one row is left to blame;
- everything else (wrong model, unknown catalogue, a bug) stops the import: no other row would fare better.

Nothing here waits or calls: the senders of `aio` and `sync` do, and ask this plan.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable

import grpc

from zhiyin_client.bulk.batches import BatchAnswer, BatchLimits, ImportStopped, PreparedRow
from zhiyin_client.refusals import Refusal

_ROW_IN_PATH = re.compile(r"^\w+\[(\d+)\]\.?(.*)$")
_FAULTS_OF_DATA = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.ALREADY_EXISTS, grpc.StatusCode.OUT_OF_RANGE)
_FIRST_BACKOFF_S = 0.2
# Each batch on its way waits in turn: together they wait as often as there are batches.
_LONGEST_BACKOFF_S = 1.0


class SendingPlan:
    """The state of one import.

    `on_accepted`, with the number of rows known before, and `on_rejected` hear of every row exactly once.
    """

    def __init__(
        self,
        limits: BatchLimits,
        on_accepted: Callable[[list[PreparedRow], int], None],
        on_rejected: Callable[[PreparedRow, str], None],
    ) -> None:
        self._limits = limits
        self._on_accepted = on_accepted
        self._on_rejected = on_rejected
        self._next_number = 1
        self._in_flight: dict[int, list[PreparedRow]] = {}
        self._to_send_again: deque[list[PreparedRow]] = deque()
        self._held: list[PreparedRow] | None = None
        self._waited_s = 0.0

    @property
    def has_room(self) -> bool:
        """Whether one more batch may be on its way."""
        return len(self._in_flight) < self._limits.in_flight

    @property
    def wants_rows(self) -> bool:
        """Whether there is room and nothing that came earlier is waiting for it."""
        return self.has_room and not self._held and not self._to_send_again

    @property
    def awaits_answers(self) -> bool:
        """Whether batches are on their way."""
        return bool(self._in_flight)

    def offer(self, batch: list[PreparedRow]) -> None:
        """Takes a batch of new rows, to be sent when `next_to_send` says so."""
        self._held = batch

    def next_to_send(self) -> tuple[int, list[PreparedRow]] | None:
        """The next batch with its number, from then on its way. None: there is none that may go now."""
        if not self.has_room:
            return None
        if self._to_send_again:
            batch = self._to_send_again.popleft()
        elif self._held and not self._would_overtake(self._held):
            batch, self._held = self._held, None
        else:
            return None
        number = self._next_number
        self._next_number += 1
        self._in_flight[number] = batch
        return number, batch

    def resolve(self, answer: BatchAnswer) -> float:
        """Takes an answer; gives the seconds to wait before anything else is sent.

        Raises ImportStopped when the import cannot go on.
        """
        batch = self._in_flight.pop(answer.number)
        refusal = answer.refusal
        if refusal is None:
            self._waited_s = 0.0
            self._on_accepted(batch, answer.known_before)
        # A batch that met the end of its stream's time is as good as new in the next stream.
        elif refusal.is_temporary or refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED:
            self._to_send_again.append(batch)
            return self._pause_s(refusal)
        elif refusal.code in _FAULTS_OF_DATA:
            self._waited_s = 0.0
            self._reject(batch, refusal)
        else:
            raise ImportStopped(f"the server refused a batch: {refusal}")
        return 0.0

    def _would_overtake(self, batch: list[PreparedRow]) -> bool:
        """Whether an earlier row with an id of this batch is still on its way.

        It must not arrive after the later one and win.
        """
        waiting = {row.key for rows in [*self._in_flight.values(), *self._to_send_again] for row in rows}
        return any(row.key in waiting for row in batch)

    def _pause_s(self, refusal: Refusal) -> float:
        if self._waited_s >= self._limits.patience_s:
            raise ImportStopped(f"nothing was accepted for {self._waited_s:.0f} s: {refusal}")
        hint_s = refusal.retry_after_s
        pause_s = (
            min(max(_FIRST_BACKOFF_S, self._waited_s), _LONGEST_BACKOFF_S) if hint_s is None else max(hint_s, 0.01)
        )
        self._waited_s += pause_s
        return pause_s

    def _reject(self, batch: list[PreparedRow], refusal: Refusal) -> None:
        blamed = _blamed_rows(refusal, len(batch))
        if refusal.violations and not blamed:
            raise ImportStopped(f"the server refused the request: {_all_reasons(refusal)}")
        if blamed:
            for index, reason in blamed.items():
                self._on_rejected(batch[index], reason)
            rest = [row for index, row in enumerate(batch) if index not in blamed]
            if rest:
                self._to_send_again.append(rest)
        elif len(batch) == 1:
            self._on_rejected(batch[0], refusal.message)
        else:
            half = len(batch) // 2
            self._to_send_again.extend([batch[:half], batch[half:]])


def _blamed_rows(refusal: Refusal, size: int) -> dict[int, str]:
    blamed: dict[int, str] = {}
    for path, description in refusal.violations:
        if (match := _ROW_IN_PATH.match(path)) and int(match[1]) < size:
            reason = f"{match[2]}: {description}" if match[2] else description
            index = int(match[1])
            blamed[index] = f"{blamed[index]}; {reason}" if index in blamed else reason
    return blamed


def _all_reasons(refusal: Refusal) -> str:
    return "; ".join(f"{path}: {description}" for path, description in refusal.violations) or refusal.message
