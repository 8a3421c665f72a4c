"""Lists kept for their next pages: bounded in memory and time. A list that is gone is made anew from its page token."""

from __future__ import annotations

import time
from collections import OrderedDict

from ranking_service import metrics
from ranking_service.selectors.slate import Slate


class ListStore:
    """The lists used last. Used on the event loop only, so it needs no lock."""

    def __init__(self, max_bytes: int, lifetime_s: float) -> None:
        self._max_bytes, self._lifetime_s = max_bytes, lifetime_s
        self._slates: OrderedDict[str, tuple[float, Slate]] = OrderedDict()
        self._bytes = 0

    def get(self, list_id: str) -> Slate | None:
        """The list, if it is still kept."""
        entry = self._slates.get(list_id)
        if entry is None or entry[0] < time.monotonic():
            return None
        self._slates.move_to_end(list_id)
        return entry[1]

    def forget(self, catalog: str, user_id: str) -> None:
        """Drops the lists of a user."""
        for list_id, (_, slate) in list(self._slates.items()):
            query = slate.taste.query
            if query.user_id == user_id and query.catalog == catalog:
                del self._slates[list_id]
                self._bytes -= slate.size_bytes
        metrics.LIST_STORE_BYTES.set(self._bytes)

    def put(self, slate: Slate) -> None:
        """Keeps a list, dropping the oldest ones to stay within the bound."""
        previous = self._slates.pop(slate.list_id, None)
        self._bytes += slate.size_bytes - (previous[1].size_bytes if previous is not None else 0)
        self._slates[slate.list_id] = (time.monotonic() + self._lifetime_s, slate)
        while self._slates and (
            self._bytes > self._max_bytes or next(iter(self._slates.values()))[0] < time.monotonic()
        ):
            _, (_, dropped) = self._slates.popitem(last=False)
            self._bytes -= dropped.size_bytes
        metrics.LIST_STORE_BYTES.set(self._bytes)
