"""Items in memory, as answers show them. Bounded by bytes; least recently used go first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

Hidden = tuple[str, ...]
"""What a view leaves out: names of fields; `attributes.NAME`: of the attributes all but those named in this way."""

MakeView = Callable[[bytes, Hidden], bytes]
"""A stored item as an answer shows it."""

# What an item and a view of it cost beside their bytes: keys, headers, dictionary slots.
_ITEM_OVERHEAD_BYTES, _VIEW_OVERHEAD_BYTES = 350, 120
# Callers use a few read masks. More of one item would only push other items out.
_MAX_VIEWS = 6


@dataclass(slots=True, eq=False)
class _Entry:
    payload: bytes
    views: dict[Hidden, bytes] = field(default_factory=dict)

    @property
    def size(self) -> int:
        shown = sum(len(view) + _VIEW_OVERHEAD_BYTES for view in self.views.values())
        return _ITEM_OVERHEAD_BYTES + len(self.payload) + shown


class ItemCache:
    """Serialised items by catalogue and number, with their views. Shared by all catalogues, safe for threads.

    Args:
        max_bytes: Bound, bookkeeping included; 0 switches the cache off.
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.bytes = 0
        self._entries: OrderedDict[tuple[int, int], _Entry] = OrderedDict()
        self._lock = threading.Lock()

    def views(self, catalog_id: int, numbers: Sequence[int], hidden: Hidden, make: MakeView) -> list[bytes | None]:
        """Views of items in the order asked; None for one that is not in memory.

        Args:
            catalog_id: Of the items.
            numbers: Of the items.
            hidden: What the view leaves out.
            make: Makes a view that nobody has asked for yet.
        """
        entries: list[_Entry | None] = []
        with self._lock:
            for number in numbers:
                entry = self._entries.get((catalog_id, number))
                if entry is not None:
                    self._entries.move_to_end((catalog_id, number))
                entries.append(entry)
        views = [None if entry is None else entry.views.get(hidden) for entry in entries]
        made = [(i, entry) for i, entry in enumerate(entries) if entry is not None and views[i] is None]
        for i, entry in made:
            views[i] = make(entry.payload, hidden)
        if made:
            with self._lock:
                for i, entry in made:
                    self._keep_view((catalog_id, numbers[i]), entry, hidden, views[i] or b"")
                self._trim()
        return views

    def put(self, catalog_id: int, number: int, payload: bytes) -> None:
        """Keeps an item, dropping others when there is no room."""
        with self._lock:
            self._forget((catalog_id, number))
            entry = self._entries[catalog_id, number] = _Entry(payload)
            self.bytes += entry.size
            self._trim()

    def forget(self, catalog_id: int, number: int) -> None:
        """Drops an item."""
        with self._lock:
            self._forget((catalog_id, number))

    def _keep_view(self, key: tuple[int, int], entry: _Entry, hidden: Hidden, view: bytes) -> None:
        if self._entries.get(key) is not entry:
            return  # written or dropped meanwhile
        self.bytes -= entry.size
        while len(entry.views) >= _MAX_VIEWS:
            del entry.views[next(iter(entry.views))]
        entry.views[hidden] = view
        self.bytes += entry.size

    def _forget(self, key: tuple[int, int]) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.bytes -= entry.size

    def _trim(self) -> None:
        while self.bytes > self.max_bytes and self._entries:
            _, entry = self._entries.popitem(last=False)
            self.bytes -= entry.size
