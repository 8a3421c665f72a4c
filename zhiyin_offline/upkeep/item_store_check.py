"""Proves that the item store agrees with itself: every rule that the writes of retrieval keep, looked at from outside.

One read transaction sees one state, so it may run beside a service that writes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from retrieval_service import store_schema as schema
from retrieval_service.conversions import item_from_payload
from retrieval_service.item import attribute_kind, passage_hash
from retrieval_service.item_store import CatalogRow, ItemStore
from retrieval_service.named_spaces import SEMANTIC
from retrieval_service.vector_rows import Connection, SpaceRow
from zhiyin_offline.upkeep.findings import Report

_PAGE = 2000
# The running sum of vectors is kept in float64 over any number of writes.
_TOTAL_TOLERANCE = 1e-4
_LENGTH_TOLERANCE = 1e-3


def check_items(store: ItemStore, connection: Connection, row: CatalogRow, report: Report) -> None:
    """Items of a catalogue: numbers, sequences, payloads, the hash of the words that each vector was made of."""
    where = f"item store, catalogue {row.name}"
    head = connection.execute(sa.select(schema.head).where(schema.head.c.catalog_id == row.catalog_id)).one_or_none()
    if head is None:
        report.found(where, "it has no sequence number", derived=False)
        return
    kinds = store.attribute_kinds(connection, row.catalog_id)
    numbers = set(connection.execute(_numbers_of(schema.items, row.catalog_id)).scalars())
    with_vector = set(connection.execute(_numbers_of(schema.vectors, row.catalog_id)).scalars())
    deleted = set(connection.execute(_numbers_of(schema.deletions, row.catalog_id)).scalars())
    wrong = Faults(report, where)
    wrong.note("items without a vector", len(numbers - with_vector))
    wrong.note("vectors of no item", len(with_vector - numbers))
    wrong.note("items that are marked as deleted", len(numbers & deleted))
    wrong.note("item numbers that will be given out again", sum(number >= head.next_number for number in numbers))
    for table in (schema.items, schema.vectors, schema.deletions):
        late = sa.select(sa.func.count()).where(table.c.catalog_id == row.catalog_id, table.c.sequence > head.seq)
        wrong.note(f"rows of {table.name} after the last write", int(connection.execute(late).scalar_one()))
    count, after = 0, ""
    while page := store.items_after(connection, row.catalog_id, after, _PAGE):
        after = page[-1].item_id
        count += len(page)
        for stored in page:
            item = item_from_payload(stored.payload)
            if (item.id, item.revision, item.sequence) != (stored.item_id, stored.revision, stored.sequence):
                wrong.note("items whose content is of another id or revision", 1)
            if passage_hash(item.passage) != stored.passage_hash:
                wrong.note("items with other words than their vector was made of", 1)
            if any(kinds.get(name) != attribute_kind(value) for name, value in item.attributes.items()):
                wrong.note("items with an attribute of another type than the catalogue's", 1)
    wrong.tell()
    report.proved.append(f"{where}: {count} items agree with their numbers, revisions, words and types")


def check_vectors(store: ItemStore, connection: Connection, row: CatalogRow, report: Report, *, repair: bool) -> None:
    """Vectors of a catalogue, and the sum of them that the mean comes from."""
    space = store.space(connection, row.catalog_id)
    if space is None:
        return
    where = f"item store, catalogue {row.name}, space semantic"
    wrong = Faults(report, where)
    count, total = 0, np.zeros(space.dimensions)
    for blobs in _blobs(connection, row.catalog_id):
        fitting = [blob for blob in blobs if len(blob) == 4 * space.dimensions]
        wrong.note("vectors of another size", len(blobs) - len(fitting))
        vectors = np.frombuffer(b"".join(fitting), "<f4").reshape(-1, space.dimensions).astype(np.float64)
        bad = ~np.isfinite(vectors).all(axis=1)
        wrong.note("vectors with values that are no numbers", int(bad.sum()))
        lengths = np.linalg.norm(vectors[~bad], axis=1)
        wrong.note("vectors of another length than 1", int((np.abs(lengths - 1) > _LENGTH_TOLERANCE).sum()))
        count += len(vectors)
        total += vectors[~bad].sum(axis=0)
    wrong.tell()
    kept = space.centering
    if kept.count != count or float(np.abs(kept.total - total).max(initial=0.0)) > _TOTAL_TOLERANCE * max(count, 1):
        if repair:
            _put_total(connection, row.catalog_id, space, count, total)
        what = f"it says that it has {kept.count} vectors, and there are {count}, or their sum is another"
        report.found(where, what, derived=True, repaired=repair)
    report.proved.append(f"{where}: {count} vectors of {space.dimensions} components, and their sum")


class Faults:
    """Counts faults by kind, so that a thousand alike are one line."""

    def __init__(self, report: Report, where: str) -> None:
        self._report, self._where = report, where
        self._counts: dict[str, int] = {}

    def note(self, kind: str, count: int) -> None:
        """Counts faults of a kind."""
        if count:
            self._counts[kind] = self._counts.get(kind, 0) + count

    def tell(self) -> None:
        """Reports them, a line a kind."""
        for kind, count in self._counts.items():
            self._report.found(self._where, f"{count} {kind}", derived=False)


def _numbers_of(table: sa.Table, catalog_id: int) -> sa.Select[Any]:
    return sa.select(table.c.number).where(table.c.catalog_id == catalog_id)


def _blobs(connection: Connection, catalog_id: int) -> Iterator[list[bytes]]:
    query = sa.select(schema.vectors.c.data).where(schema.vectors.c.catalog_id == catalog_id)
    for part in connection.execution_options(yield_per=_PAGE).execute(query).scalars().partitions(_PAGE):
        yield [bytes(blob) for blob in part]


def _put_total(
    connection: Connection, catalog_id: int, space: SpaceRow, count: int, total: NDArray[np.float64]
) -> None:
    connection.execute(
        schema.spaces.update()
        .where(schema.spaces.c.catalog_id == catalog_id, schema.spaces.c.space == SEMANTIC)
        .values(vector_count=count, vector_total=total.astype("<f8").tobytes())
    )
