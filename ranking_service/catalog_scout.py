"""Knows a little about each catalogue without owning it: its newest items and an even sample, read again in the
background.

Search answers "what is like this", never "what is there". The scout walks ListItems for lists that start from
nothing. It works only for catalogues somebody asks about, at most one refresh at a time each, a bounded number of
pages a refresh.
"""

from __future__ import annotations

import asyncio
import contextvars
import random
import time
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ranking_service.clients import Retrieval
from ranking_service.search_request import created_since
from ranking_service.taste import ScoutedItem
from service_runtime.errors import ZhiyinError
from service_runtime.telemetry import get_logger
from zhiyin.common.v1.filter_pb2 import Filter
from zhiyin.common.v1.item_pb2 import Item

_FIELDS = ("id", "categories", "created_at", "prior")
# Widths of the windows in which new items are looked for, in seconds, when the widest holds more than a page.
_WIDEST_WINDOW_S = 30 * 86_400.0
_WINDOWS_S = (60.0, 3_600.0, 86_400.0, 7 * 86_400.0)
_ENOUGH_NEW = 200
_SAMPLE_SIZE = 2_000
_PAGES_PER_REFRESH = 5
# A catalogue that was walked through is walked through again after this time.
_WALK_AGAIN_S = 60.0

log = get_logger(__name__)


@dataclass(slots=True)
class _Catalog:
    """What is known of one catalogue."""

    newest: list[ScoutedItem] = field(default_factory=list)
    sample: list[ScoutedItem] = field(default_factory=list)
    walk: _Walk = field(default_factory=lambda: _Walk())
    walked_at: float = float("-inf")
    refreshed_at: float = float("-inf")
    refresh: asyncio.Task[None] | None = None


class _Walk:
    """A pass over the catalogue that keeps an even sample (Vitter 1985, Algorithm R)."""

    def __init__(self) -> None:
        self.page_token = ""
        self.sample: list[ScoutedItem] = []
        self._met = 0
        self._random = random.Random(0)

    def meet(self, items: Sequence[ScoutedItem]) -> None:
        """Lets each item into the sample with the same chance as every item before."""
        for item in items:
            self._met += 1
            if len(self.sample) < _SAMPLE_SIZE:
                self.sample.append(item)
            elif (place := self._random.randrange(self._met)) < _SAMPLE_SIZE:
                self.sample[place] = item


class CatalogScout:
    """The newest items and a sample of each catalogue, a few seconds old at most while somebody asks."""

    def __init__(self, retrieval: Retrieval, refresh_s: float, max_catalogs: int = 64) -> None:
        self._retrieval, self._refresh_s, self._max_catalogs = retrieval, refresh_s, max_catalogs
        self._catalogs: dict[str, _Catalog] = {}

    async def look(self, catalog: str, timeout_s: float) -> bool:
        """Starts a refresh when the last is too old; waits for it only when nothing is known yet.

        Returns:
            False when nothing is known after `timeout_s`.
        """
        known = self._catalogs.pop(catalog, None) or _Catalog()
        self._catalogs[catalog] = known
        while len(self._catalogs) > self._max_catalogs:
            oldest = self._catalogs.pop(next(iter(self._catalogs)))
            if oldest.refresh is not None:
                oldest.refresh.cancel()
        if known.refresh is None and time.monotonic() - known.refreshed_at > self._refresh_s:
            known.refresh = asyncio.create_task(
                # Not in the context of the request: its deadline is not that of the refresh.
                self._refresh(catalog, known),
                context=contextvars.Context(),
            )
        if known.refreshed_at == float("-inf") and known.refresh is not None:
            await asyncio.wait([known.refresh], timeout=max(timeout_s, 0.0))
        return known.refreshed_at != float("-inf")

    def newest(self, catalog: str) -> list[ScoutedItem]:
        """Up to 200 items created last, newest first."""
        known = self._catalogs.get(catalog)
        return known.newest if known else []

    def sample(self, catalog: str) -> list[ScoutedItem]:
        """Up to 2,000 items, each of the catalogue's with the same chance once it was walked through."""
        known = self._catalogs.get(catalog)
        return (known.sample or known.walk.sample) if known else []

    async def matching(self, catalog: str, condition: Filter) -> list[ScoutedItem]:
        """Up to 1,000 items that match, read now: a sample of the whole may hold none of them."""
        items, _ = await self._retrieval.list_items(catalog, condition, "", _FIELDS)
        return [_scouted(item) for item in items]

    async def close(self) -> None:
        """Ends what runs in the background."""
        tasks = [known.refresh for known in self._catalogs.values() if known.refresh is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _refresh(self, catalog: str, known: _Catalog) -> None:
        try:
            await self._walk_on(catalog, known)
            known.newest = await self._find_newest(catalog)
            known.refreshed_at = time.monotonic()
        except ZhiyinError as error:
            # The lists of those with a taste do not need this; the others report the source as missing.
            log.warning("catalog_scout_failed", catalog=catalog, reason=error.reason)
        finally:
            known.refresh = None

    async def _walk_on(self, catalog: str, known: _Catalog) -> None:
        if time.monotonic() - known.walked_at < _WALK_AGAIN_S:
            return
        for _ in range(_PAGES_PER_REFRESH):
            items, token = await self._retrieval.list_items(catalog, None, known.walk.page_token, _FIELDS)
            known.walk.meet([_scouted(item) for item in items])
            known.walk.page_token = token
            if not token:
                known.sample, known.walk, known.walked_at = known.walk.sample, _Walk(), time.monotonic()
                return

    async def _find_newest(self, catalog: str) -> list[ScoutedItem]:
        now = time.time()
        widest, more = await self._retrieval.list_items(catalog, created_since(now - _WIDEST_WINDOW_S), "", _FIELDS)
        found: dict[str, ScoutedItem] = {}
        for width in _WINDOWS_S if more else ():
            items, cut = await self._retrieval.list_items(catalog, created_since(now - width), "", _FIELDS)
            found.update((item.id, _scouted(item)) for item in items)
            if cut or len(found) >= _ENOUGH_NEW:
                break
        if len(found) < _ENOUGH_NEW:
            found.update((item.id, _scouted(item)) for item in widest)
        return newest_first(found.values())[:_ENOUGH_NEW]


def newest_first(items: Iterable[ScoutedItem]) -> list[ScoutedItem]:
    """Items by falling time of creation."""
    return sorted(items, key=lambda item: (-item.created_at, item.tie))


def _scouted(item: Item) -> ScoutedItem:
    return ScoutedItem(
        item.id,
        item.categories[0] if item.categories else "",
        item.created_at.seconds + item.created_at.nanos / 1e9,
        item.prior if item.HasField("prior") else 0.5,
        zlib.crc32(item.id.encode()),
    )
