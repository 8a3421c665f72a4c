"""What the service process knows of one catalogue in memory: ids, numbers, filters, and items as far as they fit.

Derived from the store: filled at start, changed after every commit. A batch becomes visible as a whole.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from pyroaring import BitMap

from retrieval_service.filter_index import FilterIndex
from retrieval_service.filters import Filter, type_faults
from retrieval_service.item import Item
from retrieval_service.item_cache import Hidden, ItemCache, MakeView
from retrieval_service.number_column import bitmap_of, numbers_of
from service_runtime.errors import InvalidRequest

# More exclusions than this go into the bitmaps instead of along with the query.
_MAX_DENIED = 64


@dataclass(frozen=True, slots=True)
class ItemChange:
    """One item before and after a write.

    Attributes:
        number: For life.
        old: None: it is new.
        new: None: it is deleted.
        payload: The new item, serialised; empty when deleted.
    """

    number: int
    old: Item | None
    new: Item | None
    payload: bytes = b""


@dataclass(frozen=True, slots=True)
class Label:
    """A question about the items of an answer.

    Attributes:
        name: The caller's.
        condition: Which items carry the label; None: all.
        add: So many of them are to be in the answer if they pass, those with the best prior.
    """

    name: str
    condition: Filter | None
    add: int = 0


@dataclass(frozen=True, slots=True)
class Selection:
    """What the directory says to one search, of one state.

    Attributes:
        allowed: A bitmap for each filter asked, availability and exclusions included; None: everything is allowed.
        numbers: Of the hydrated ids that exist and pass, by id, in the order asked.
        filtered: Hydrated ids that exist and do not pass.
        missing: Hydrated ids that do not exist.
        examples: For each query the example ids that exist, as numbers; None for ids that do not.
        denied: Numbers of the excluded ids that exist, when they are few; many are taken out of the bitmaps.
        sequence: Of the state.
        added: For each label what it adds: numbers by id, best prior first.
    """

    allowed: list[BitMap | None]
    numbers: dict[str, int]
    filtered: list[str]
    missing: list[str]
    examples: list[list[int | None]]
    denied: list[int]
    sequence: int
    added: list[dict[str, int]]


class Directory:
    """Ids, numbers and filters of one catalogue. Safe for threads; no lock is held for more than a batch."""

    def __init__(self, catalog_id: int, cache: ItemCache) -> None:
        self.catalog_id = catalog_id
        self.sequence = 0
        self._cache = cache
        self._numbers: dict[str, int] = {}
        self._ids: dict[int, str] = {}
        self._kinds: dict[str, str] = {}
        self._filters = FilterIndex()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._numbers)

    def apply(self, sequence: int, changes: Sequence[ItemChange], kinds: dict[str, str]) -> None:
        """Makes a committed write visible. A write seen already is left out."""
        with self._lock:
            if sequence <= self.sequence:
                return
            self._kinds.update(kinds)
            self._apply(changes)
            self.sequence = sequence

    def load(self, changes: Sequence[ItemChange]) -> None:
        """Takes in a part of a catalogue at start, before anybody reads."""
        with self._lock:
            self._apply(changes)

    def _apply(self, changes: Sequence[ItemChange]) -> None:
        for change in changes:
            if change.old is not None:
                self._filters.remove(change.number, change.old)
            if change.new is not None:
                self._filters.add(change.number, change.new)
                self._numbers[change.new.id] = change.number
                self._ids[change.number] = change.new.id
                self._cache.put(self.catalog_id, change.number, change.payload)
            elif change.old is not None:
                del self._numbers[change.old.id], self._ids[change.number]
                self._cache.forget(self.catalog_id, change.number)

    def ids(self, numbers: Iterable[int]) -> list[str | None]:
        """The id of each number; None for one that is not (or no longer) here."""
        return [self._ids.get(number) for number in numbers]

    def number(self, item_id: str) -> int | None:
        """The number of an id."""
        return self._numbers.get(item_id)

    def views(self, numbers: Sequence[int], hidden: Hidden, make: MakeView) -> list[bytes | None]:
        """Items as an answer shows them; see ItemCache.views."""
        return self._cache.views(self.catalog_id, numbers, hidden, make)

    def keep(self, number: int, sequence: int, payload: bytes) -> None:
        """Caches an item that was read from the store, unless a later write was read that is not visible yet."""
        with self._lock:
            if sequence <= self.sequence and number in self._ids:
                self._cache.put(self.catalog_id, number, payload)

    def matching_ids(self, condition: Filter) -> list[str]:
        """Ids of the items that match, hidden ones too, in no promised order."""
        return [item_id for item_id in self.ids(self.matching(condition)) if item_id is not None]

    def matching(self, condition: Filter) -> BitMap:
        """Items that match, hidden ones too; a copy."""
        with self._lock:
            self._check([condition])
            return self._filters.matching(condition, self._numbers).copy()

    def select(
        self,
        conditions: Sequence[Filter | None],
        *,
        common: Filter | None,
        include_unavailable: bool,
        hydrate: Sequence[str],
        exclude: Sequence[str],
        examples: Sequence[Sequence[str]],
        labels: Sequence[Label] = (),
        now: datetime | None = None,
    ) -> Selection:
        """Resolves ids and evaluates filters over one state.

        Args:
            conditions: One a query; None: none of its own.
            common: Holds for every query and for the hydrated ids.
            include_unavailable: Whether hidden items count.
            hydrate: Ids found elsewhere.
            exclude: Ids that must not come back.
            examples: Ids of examples, a list a query.
            labels: What they add has to pass like a hit.
            now: The moment of availability; None: the clock's.

        Raises:
            InvalidRequest: A condition does not fit the type of its field.
        """
        with self._lock:
            asked = (common, *conditions, *(label.condition for label in labels))
            self._check([condition for condition in asked if condition is not None])
            everything = self._filters.all
            base = everything if include_unavailable else self._filters.visible(now or datetime.now(UTC))
            if common is not None:
                base = base & self._filters.matching(common, self._numbers)
            excluded = {self._numbers[i]: None for i in exclude if i in self._numbers}
            denied = list(excluded)
            hits = base
            if len(denied) > _MAX_DENIED:
                hits, denied = base - BitMap(denied), []
            allowed: list[BitMap | None] = []
            shared: BitMap | None = None
            for condition in conditions:
                own = hits if condition is None else hits & self._filters.matching(condition, self._numbers)
                # A copy: the live bitmap goes on changing after the lock is released. One object a
                # filter: it is sent once.
                if len(own) == len(everything):
                    allowed.append(None)
                elif condition is None and shared is not None:
                    allowed.append(shared)
                else:
                    allowed.append(own.copy())
                    shared = allowed[-1] if condition is None else shared
            numbers, filtered, missing = {}, [], []
            for item_id in dict.fromkeys(hydrate):
                number = self._numbers.get(item_id)
                if number is None:
                    missing.append(item_id)
                elif number in excluded or number not in base:
                    filtered.append(item_id)
                else:
                    numbers[item_id] = number
            found = [[self._numbers.get(i) for i in ids] for ids in examples]
            added = [self._best(label, hits, excluded) if label.add else {} for label in labels]
            return Selection(allowed, numbers, filtered, missing, found, denied, self.sequence, added)

    def labelled(self, labels: Sequence[Label], numbers: Sequence[int]) -> list[list[int]]:
        """For each label the positions of the items that carry it, rising.

        Args:
            labels: Checked by `select`.
            numbers: Of the items of an answer; looked at are no others.
        """
        given = np.array(numbers, dtype=np.uint32)
        order = np.argsort(given)
        rising = given[order]
        among = bitmap_of(rising)
        with self._lock:
            among &= self._filters.all  # one may have been deleted a moment ago
            carriers = [
                among if label.condition is None else self._filters.matching(label.condition, self._numbers, among)
                for label in labels
            ]
        places = [order[np.searchsorted(rising, numbers_of(carrying))] for carrying in carriers]
        return [np.sort(some).tolist() for some in places]

    def _best(self, label: Label, hits: BitMap, excluded: Mapping[int, None]) -> dict[str, int]:
        found = hits if label.condition is None else hits & self._filters.matching(label.condition, self._numbers)
        best = self._filters.best(found - BitMap(excluded), label.add)
        return {self._ids[number]: number for number in best}

    def _check(self, conditions: Sequence[Filter]) -> None:
        faults = [fault for condition in conditions for fault in type_faults(condition, self._kinds)]
        if faults:
            raise InvalidRequest(faults)
