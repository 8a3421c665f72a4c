"""How writes of items reach the spaces beside `semantic`, in the same transaction.

A version with a projection gets a vector for every item whose semantic vector is new, unless one was put for the item.
An item that is deleted leaves every version.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from retrieval_service.index_messages import IndexChange
from retrieval_service.item_store import ItemStore
from retrieval_service.named_spaces import IndexKey, NamedSpace, Projection
from retrieval_service.vector_rows import Connection

# Maps in memory, of a megabyte at most each: reading one anew for every write would cost more than the write.
_PROJECTIONS = 32
_NOTHING = np.empty(0, dtype=np.int64)


class SpaceFollower:
    """Carries writes of items over to named spaces. For the writer's thread.

    Args:
        store: The truth.
    """

    def __init__(self, store: ItemStore) -> None:
        self._store = store
        self._projections: OrderedDict[IndexKey, Projection] = OrderedDict()
        self._without: set[int] = set()

    def expect(self, catalog_id: int) -> None:
        """Says that a catalogue may have named spaces from here on, in this transaction already."""
        self._without.discard(catalog_id)

    def written(
        self,
        connection: Connection,
        catalog_id: int,
        sequence: int,
        numbers: Sequence[int],
        vectors: NDArray[np.float32],
        replaced: Collection[int],
    ) -> tuple[IndexChange, ...]:
        """What new semantic vectors change in the indexes of the other spaces.

        Args:
            connection: Of the transaction that writes the items.
            catalog_id: The catalogue.
            sequence: Of the write.
            numbers: Items with a new semantic vector.
            vectors: Those vectors, raw, a row an item.
            replaced: Those of the items that had a vector before: one may have been put for them.
        """
        changes = []
        for space in self._spaces(connection, catalog_id) if numbers else ():
            if not space.derived_from:
                continue
            key = IndexKey(catalog_id, space.space, space.version)
            put = self._store.with_put_vector(connection, key, sorted(replaced))
            rows = [i for i, number in enumerate(numbers) if number not in put]
            if rows:
                projected = self._projection(connection, key, space).vectors(vectors[rows], space)
                own = np.asarray(numbers, dtype=np.int64)[rows]
                changes.append(_change(key, sequence, own, projected, _NOTHING))
        return tuple(changes)

    def deleted(
        self, connection: Connection, catalog_id: int, sequence: int, numbers: Sequence[int]
    ) -> tuple[IndexChange, ...]:
        """Deletes the vectors of items that are gone; returns what that changes in the indexes."""
        changes = []
        for space in self._spaces(connection, catalog_id):
            key = IndexKey(catalog_id, space.space, space.version)
            self._store.delete_space_vectors(connection, key, numbers)
            no_rows = np.empty((0, space.dimensions), dtype=np.float32)
            changes.append(_change(key, sequence, _NOTHING, no_rows, np.asarray(numbers, dtype=np.int64)))
        return tuple(changes)

    def _spaces(self, connection: Connection, catalog_id: int) -> Iterable[NamedSpace]:
        """Live versions; a catalogue that has none is asked for them once, so that its writes cost what they did."""
        if catalog_id in self._without:
            return ()
        spaces = self._store.named_spaces(connection, catalog_id)
        if not len(spaces):
            self._without.add(catalog_id)
        return spaces

    def _projection(self, connection: Connection, key: IndexKey, space: NamedSpace) -> Projection:
        found = self._projections.get(key) or self._store.projection(connection, space, key.catalog_id)
        assert found is not None, f"{key} is derived and has no projection"
        self._projections[key] = found
        self._projections.move_to_end(key)
        while len(self._projections) > _PROJECTIONS:
            self._projections.popitem(last=False)
        return found


def _change(
    key: IndexKey,
    sequence: int,
    numbers: NDArray[np.int64],
    vectors: NDArray[np.float32],
    deleted: NDArray[np.int64],
) -> IndexChange:
    return IndexChange(key.catalog_id, sequence, numbers, vectors, deleted, space=key.space, version=key.version)
