"""The log of served lists: a bounded queue, and one thread that writes what waits in it.

A request hands over what it served and goes on; what finds no room is dropped and counted. The thread makes records,
keeps them in memory for a while, and writes those of stored users, many in one transaction.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from ranking_service.served_lists import log_metrics as metrics
from ranking_service.served_lists.log_bounds import LogBounds
from ranking_service.served_lists.page_record import PageRecord
from ranking_service.served_lists.recent_pages import RecentPages
from ranking_service.served_lists.served_list_store import ServedListStore
from ranking_service.served_lists.served_page import ServedPage, Wording, record_of
from ranking_service.users.erased_bytes import ErasedBytes
from service_runtime import sql
from service_runtime.errors import NotReady, StoreUnavailable
from service_runtime.telemetry import get_logger

# So long pages gather for one transaction; a killed process loses about this much of its log.
_GATHER_S = 0.25
_TIDY_EVERY_S = 60.0
# Between two records, so that whoever waits for the interpreter gets it.
_BREATH_S = 0.0005
# Requests that began before an erasure have ended by then.
_ERASURE_NOTED_S = 600.0

_log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Order:
    """Something for the thread to do, once what came before is written."""

    run: Callable[[], Any]
    done: Future[Any]


class ServedListLog:
    """Takes served pages and finds them again.

    Args:
        store: Of pages of stored users.
        wording: Gives places their sources and reasons where the request did not ask for them.
        bounds: What the log may take.
        clock: Unix seconds.
    """

    def __init__(
        self,
        store: ServedListStore,
        wording: Wording,
        bounds: LogBounds,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.bounds = bounds
        self._store, self._wording, self._clock = store, wording, clock
        self._recent = RecentPages(bounds.memory_bytes, bounds.memory_s)
        self._erased_bytes = ErasedBytes(store.forget_deleted_bytes)
        # By user id and by key: the latter are what other replicas' erasures tell, and are never given twice.
        self._erased: dict[tuple[str, str | int], float] = {}
        self._waiting: deque[ServedPage | _Order] = deque()
        self._queued_bytes = 0
        self._condition = threading.Condition()
        self._closing = self._hurry = False
        self._tidied_at = float("-inf")
        self._thread = threading.Thread(target=self._run, name="served-lists", daemon=True)

    def start(self) -> None:
        """Starts the thread. A store that cannot be opened holds nobody up: its pages are dropped and counted."""
        metrics.QUEUE_BYTES.set_function(lambda: self._queued_bytes)
        self._thread.start()

    async def close(self) -> None:
        """Writes what waits, then stops."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        if self._thread.is_alive():
            await asyncio.to_thread(self._thread.join)
        self._erased_bytes.close()
        self._store.close()

    def offer(self, served: ServedPage) -> None:
        """Takes a page, or drops it where there is no room. Never waits."""
        size = served.slate.size_bytes
        with self._condition:
            if self._closing or self._queued_bytes + size > self.bounds.queue_bytes:
                metrics.PAGES.labels("dropped").inc()
                return
            self._queued_bytes += size
            self._waiting.append(served)
            if len(self._waiting) == 1:
                self._condition.notify()

    async def find(self, catalog: str, list_id: str) -> list[PageRecord]:
        """The pages of a list, in the order they were served; those that still wait among them.

        Raises:
            StoreUnavailable: The store cannot be read.
        """
        if self._waiting:
            await self._order(lambda: None)
        recent = self._recent.pages(catalog, list_id)
        if self.bounds.store_s <= 0:
            return recent
        try:
            stored = await asyncio.to_thread(self._stored, catalog, list_id)
        except StoreUnavailable:
            if not recent:
                raise
            return recent
        return stored + [record for record in recent if record not in stored]

    async def erase(self, catalog: str, user_id: str) -> None:
        """Forgets a user's lists, those that are being made at this moment too, and the bytes that they left.

        Raises:
            StoreUnavailable: The store cannot be written to; what it holds is still there.
        """
        self._note_erasure(catalog, [user_id])
        await self._order(lambda: self._erase(catalog, user_id))

    def forget_keys(self, catalog: str, keys: Sequence[int]) -> None:
        """Forgets users that another replica has erased: what was served to them here meanwhile. Does not wait."""
        self._note_erasure(catalog, keys)
        with self._condition:
            if not self._closing:
                self._waiting.append(_Order(lambda: self._erase_keys(catalog, keys), Future()))
                self._hurry = True
                self._condition.notify()

    async def tidy(self) -> None:
        """Deletes what is too old or too much, as happens every minute."""
        await self._order(self._tidy)

    def _note_erasure(self, catalog: str, who: Sequence[str | int]) -> None:
        now = time.monotonic()
        with self._condition:
            self._erased = {each: at for each, at in self._erased.items() if at > now - _ERASURE_NOTED_S}
            self._erased |= {(catalog, each): now for each in who}

    async def _order(self, run: Callable[[], Any]) -> None:
        order = _Order(run, Future())
        with self._condition:
            if self._closing or not self._thread.is_alive():
                raise NotReady("the log of served lists is closed")
            self._waiting.append(order)
            self._hurry = True
            self._condition.notify()
        await asyncio.wrap_future(order.done)

    def _run(self) -> None:
        while (jobs := self._take()) is not None:
            batch: list[PageRecord] = []
            for job in jobs:
                if isinstance(job, ServedPage):
                    batch += self._record(job)
                    time.sleep(_BREATH_S)
                    continue
                self._write(batch)
                batch = []
                _carry_out(job)
            self._write(batch)
            if time.monotonic() - self._tidied_at > _TIDY_EVERY_S:
                try:
                    self._tidy()
                except Exception as error:
                    _log.warning("served_lists_not_tidied", error=str(error))

    def _take(self) -> list[ServedPage | _Order] | None:
        with self._condition:
            due = self._tidied_at + _TIDY_EVERY_S
            while not (self._waiting or self._closing) and time.monotonic() < due:
                self._condition.wait(max(due - time.monotonic(), 0.0))
            gathered = time.monotonic() + _GATHER_S
            while self._waiting and not (self._hurry or self._closing) and time.monotonic() < gathered:
                self._condition.wait(max(gathered - time.monotonic(), 0.0))
            if self._closing and not self._waiting:
                return None
            jobs = list(self._waiting)
            self._waiting.clear()
            self._hurry = False
            self._queued_bytes = 0
            return jobs

    def _record(self, served: ServedPage) -> list[PageRecord]:
        query, key = served.slate.taste.query, served.slate.taste.state.key
        erased = self._erased
        if served.began <= erased.get((query.catalog, query.user_id), float("-inf")) or (query.catalog, key) in erased:
            return []
        try:
            record = record_of(served, self._wording, int(self._clock() * 1e6))
        except Exception:
            # A list that cannot be written down must not end the log.
            _log.exception("served_page_not_recorded")
            metrics.PAGES.labels("failed").inc()
            return []
        self._recent.put(record)
        return [record] if record.user_id and self.bounds.store_s > 0 else []

    def _write(self, batch: Sequence[PageRecord]) -> None:
        if not batch:
            return
        try:
            self._store.add(batch)
        except Exception as error:
            # Whatever it is, it costs these pages and not the log.
            metrics.PAGES.labels("failed").inc(len(batch))
            _log.warning("served_pages_not_written", pages=len(batch), error=str(error))
            self._set_aside_if_damaged(error)
            return
        metrics.PAGES.labels("written").inc(len(batch))

    def _stored(self, catalog: str, list_id: str) -> list[PageRecord]:
        try:
            return self._store.pages(catalog, list_id)
        except (StoreUnavailable, SQLAlchemyError) as error:
            if sql.is_damaged(error.__cause__ or error):
                return []
            raise

    def _erase(self, catalog: str, user_id: str) -> None:
        self._recent.forget(catalog, user_id)
        if not self._store.exists():
            return
        try:
            erased = self._store.erase(catalog, user_id)
        except (StoreUnavailable, SQLAlchemyError) as error:
            if not self._set_aside_if_damaged(error):
                raise
            return
        if erased:
            self._erased_bytes.forget()

    def _erase_keys(self, catalog: str, keys: Sequence[int]) -> None:
        self._recent.forget_keys(catalog, keys)
        try:
            if self._store.exists():
                self._store.erase_keys(catalog, keys)
        except (StoreUnavailable, SQLAlchemyError) as error:
            _log.warning("erased_users_remain_in_served_lists", catalog=catalog, users=len(keys), error=str(error))

    def _tidy(self) -> None:
        self._tidied_at = time.monotonic()
        if not self._store.exists():
            return
        try:
            if self.bounds.store_s <= 0:
                self._store.discard()
                return
            before = int((self._clock() - self.bounds.store_s) * 1e6)
            metrics.STORE_BYTES.set(self._store.trim(before, self.bounds.store_bytes))
        except (StoreUnavailable, SQLAlchemyError) as error:
            if not self._set_aside_if_damaged(error):
                raise

    def _set_aside_if_damaged(self, error: BaseException) -> bool:
        """A damaged log is thrown away: nothing depends on it, and what it holds could not be erased any more."""
        if not sql.is_damaged(error.__cause__ or error):
            return False
        _log.error("served_lists_damaged", consequence="the log of served lists begins anew")
        try:
            self._store.discard()
        except OSError as failed:
            _log.error("served_lists_not_discarded", error=str(failed))
            return False
        return True


def _carry_out(order: _Order) -> None:
    if not order.done.set_running_or_notify_cancel():
        return
    try:
        order.done.set_result(order.run())
    except BaseException as error:
        order.done.set_exception(error)
