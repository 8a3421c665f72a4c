"""The one writer of a store: a thread that commits waiting jobs together, applies them, and only then answers.

    submit -> bounded queue -> [ one transaction: a savepoint a job ] -> COMMIT -> apply -> resolve futures

One fsync serves all jobs that gathered while the last one ran (group commit), so durability costs little under load.
A job that raises is rolled back alone. After the commit nothing may fail: when `apply` does, memory and store disagree,
and the writer stops and calls `on_fatal`; a restart replays the store.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from sqlalchemy import Connection, Engine, Table
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from service_runtime import sql
from service_runtime.commit_receipt import CommitMarks
from service_runtime.errors import NotReady, Overloaded, StoreUnavailable
from service_runtime.store_refusals import refusal
from service_runtime.telemetry import get_logger

T = TypeVar("T")
_log = get_logger(__name__)
# Transactions of other replicas that may be in the way of one group before it is refused.
_MAX_COLLISIONS = 10
# A commit whose answer was lost: when its callers are told so, and when a writer that closes stops asking.
_TELL_AFTER_S = 2.0
_GIVE_UP_AFTER_S = 10.0


@dataclass(slots=True)
class _Job(Generic[T]):
    write: Callable[[Connection], T]
    size_bytes: int
    future: asyncio.Future[T]
    loop: asyncio.AbstractEventLoop


class SqlWriter(Generic[T]):
    """Owns every write to one database.

    Args:
        engine: From `sql.open_engine`.
        apply: Told the results of the committed jobs, in commit order, before their callers are.
        name: For logs, metrics and the thread.
        max_queued_bytes: Bound of what may wait; beyond it `submit` raises Overloaded.
        max_group_bytes: Bound of one transaction.
        facts: The store's table of facts, where PostgreSQL keeps the marks of commits. Needed there only.
        on_fatal: Called once, in the writer's thread, when memory and store disagree or the thread dies.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        apply: Callable[[Sequence[T]], None],
        name: str,
        max_queued_bytes: int = 64 << 20,
        max_group_bytes: int = 8 << 20,
        facts: Table | None = None,
        on_fatal: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._engine = engine
        self._apply = apply
        self._name = name
        self._max_queued_bytes = max_queued_bytes
        self._max_group_bytes = max_group_bytes
        self._on_fatal = on_fatal
        self._marks: CommitMarks | None = None
        if engine.dialect.name == "postgresql":
            assert facts is not None, "without marks nobody can tell what became of a commit"
            self._marks = CommitMarks(engine, facts)
        self._waiting: deque[_Job[T]] = deque()
        self._queued_bytes = 0
        self._condition = threading.Condition()
        self._closing = False
        self._failure: BaseException | None = None
        self._bytes_per_second = 1e6  # a first guess; measured from the first group on
        self._thread = threading.Thread(target=self._run, name=f"{name}-writer", daemon=True)

    @property
    def queued(self) -> int:
        """Jobs that wait."""
        return len(self._waiting)

    @property
    def queued_bytes(self) -> int:
        """Bytes that wait."""
        return self._queued_bytes

    @property
    def failure(self) -> BaseException | None:
        """Why the writer stopped, when it did."""
        return self._failure

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    async def submit(self, write: Callable[[Connection], T], size_bytes: int) -> T:
        """Runs `write` inside a transaction of the writer's; returns when it is committed and applied.

        A caller that goes away while its job waits takes the job with it; once the job runs it is finished.

        Raises:
            Overloaded: The queue is full.
            StoreUnavailable: The store could not commit; nothing was written, or the message says that nobody knows.
            NotReady: The writer is closing or has stopped.
            ZhiyinError: Whatever `write` raised.
        """
        loop = asyncio.get_running_loop()
        job = _Job(write, size_bytes, loop.create_future(), loop)
        with self._condition:
            if self._closing or self._failure is not None:
                raise NotReady(f"the {self._name} store takes no more writes: it is closing or has failed")
            if self._waiting and self._queued_bytes + size_bytes > self._max_queued_bytes:
                raise Overloaded(f"the write queue of {self._name}", self._queued_bytes / self._bytes_per_second)
            self._waiting.append(job)
            self._queued_bytes += size_bytes
            self._condition.notify()
        result: T = await job.future
        return result

    async def close(self) -> None:
        """Finishes what waits, then stops."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        if self._marks is not None and self._failure is None:
            with contextlib.suppress(SQLAlchemyError, StoreUnavailable):  # a row that stays does no harm
                await asyncio.to_thread(self._marks.remove)

    def _run(self) -> None:
        while group := self._take_group():
            started = time.monotonic()
            try:
                self._commit_group(group)
            except BaseException as error:
                self._stop(error, group)
                return
            elapsed = max(time.monotonic() - started, 1e-6)
            rate = sum(job.size_bytes for job in group) / elapsed
            self._bytes_per_second += 0.2 * (rate - self._bytes_per_second)

    def _take_group(self) -> list[_Job[T]]:
        with self._condition:
            while True:
                group: list[_Job[T]] = []
                size = 0
                while self._waiting and (not group or size + self._waiting[0].size_bytes <= self._max_group_bytes):
                    job = self._waiting.popleft()
                    self._queued_bytes -= job.size_bytes
                    if not job.future.cancelled():
                        group.append(job)
                        size += job.size_bytes
                if group or (self._closing and not self._waiting):
                    return group
                self._condition.wait()

    def _commit_group(self, group: list[_Job[T]]) -> None:
        for attempt in range(_MAX_COLLISIONS + 1):
            outcomes: list[tuple[_Job[T], T | None, BaseException | None]] = []
            mark: str | None = None
            try:
                if self._marks is not None:
                    self._marks.prepare()
                with self._engine.begin() as connection:
                    for job in group:
                        outcomes.append((job, *self._write_one(connection, job)))
                    if self._marks is not None:
                        mark = self._marks.leave(connection)
            except (SQLAlchemyError, StoreUnavailable) as error:
                if isinstance(error, SQLAlchemyError) and sql.is_collision(error) and attempt < _MAX_COLLISIONS:
                    continue  # another replica's transaction was in the way: nothing is written, and nothing is lost
                # Begin, a savepoint or the commit failed: nothing of the group is in the store, unless the answer to
                # the commit itself was lost.
                if mark is None or not self._was_committed(mark, group):
                    self._refuse(group, error)
                    return
            break
        done = [result for _, result, error in outcomes if error is None]
        if done:
            self._apply(done)  # type: ignore[arg-type]  # no error: the result is a T
        for job, result, failed in outcomes:
            _resolve(job, result, failed)

    def _refuse(self, group: list[_Job[T]], error: SQLAlchemyError | StoreUnavailable) -> None:
        if isinstance(error, SQLAlchemyError):
            why = sql.cause(error)
            failure = refusal(self._engine, error, self._name, why)
        else:
            why = error.message
            failure = StoreUnavailable(f"the {self._name} store could not commit ({why}); nothing was written")
        _log.error("commit_failed", store=self._name, jobs=len(group), reason=failure.reason, error=why)
        for job in group:
            _resolve(job, None, failure)

    def _was_committed(self, mark: str, group: list[_Job[T]]) -> bool:
        """Finds out, however long the database is away: memory must follow the store before the next group may run."""
        _log.error("commit_outcome_unknown", store=self._name, jobs=len(group))
        started = time.monotonic()

        def keep_waiting() -> bool:
            waited = time.monotonic() - started
            if waited > _TELL_AFTER_S:
                unknown = StoreUnavailable(
                    f"the connection to the {self._name} store was lost during the commit; the write may or may not "
                    "be durable"
                )
                for job in group:
                    _resolve(job, None, unknown)
                self._refuse_waiting()
            return not (self._closing and waited > _GIVE_UP_AFTER_S)

        assert self._marks is not None
        committed = self._marks.is_committed(mark, keep_waiting)
        _log.info("commit_outcome_known", store=self._name, committed=committed)
        return committed

    def _refuse_waiting(self) -> None:
        with self._condition:
            waiting = list(self._waiting)
            self._waiting.clear()
            self._queued_bytes = 0
        for job in waiting:
            _resolve(job, None, StoreUnavailable(f"the {self._name} store is away; nothing was written"))

    def _write_one(self, connection: Connection, job: _Job[T]) -> tuple[T | None, BaseException | None]:
        savepoint = connection.begin_nested()
        try:
            result = job.write(connection)
        except DBAPIError as error:
            if not sql.is_data_error(error):
                raise  # disk full, I/O error, lost connection: the whole group fails
            savepoint.rollback()
            return None, error
        except Exception as error:
            savepoint.rollback()
            return None, error
        savepoint.commit()
        return result, None

    def _stop(self, error: BaseException, group: list[_Job[T]]) -> None:
        _log.critical("writer_stopped", store=self._name, error=type(error).__name__, exc_info=error)
        with self._condition:
            self._failure = error
            waiting = list(self._waiting)
            self._waiting.clear()
            self._queued_bytes = 0
        try:
            if self._on_fatal is not None:
                self._on_fatal(error)
        finally:
            # The jobs of the group may be committed: the caller must not believe that they are not.
            for job in group:
                _resolve(job, None, NotReady(f"the {self._name} store has failed; the write may or may not be durable"))
            for job in waiting:
                _resolve(job, None, NotReady(f"the {self._name} store has failed; nothing was written"))


def _resolve(job: _Job[Any], result: Any, error: BaseException | None) -> None:
    def settle() -> None:
        if job.future.done():
            return
        if error is None:
            job.future.set_result(result)
        elif isinstance(error, StopIteration):  # no future takes one, and its caller would wait for ever
            job.future.set_exception(RuntimeError("a write raised StopIteration"))
        else:
            job.future.set_exception(error)

    try:
        job.loop.call_soon_threadsafe(settle)
    except RuntimeError:  # the caller's loop is closed: nobody waits any more
        _log.info("write_finished_after_its_caller")
