"""The vectors of items in SQL, raw as the encoder gave them, and what happened to them since a sequence number."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from retrieval_service import store_schema as schema
from retrieval_service.centering import CenteringState
from retrieval_service.named_spaces import SEMANTIC

Connection = sa.Connection

ID_CHUNK = 500
"""Ids of one IN clause."""
_LAST_NUMBER = 2**63 - 1


@dataclass(frozen=True, slots=True)
class SpaceRow:
    """Version 1 of the semantic space of a catalogue. `metric` is `cosine`."""

    fingerprint: str
    dimensions: int
    metric: str
    centering: CenteringState
    version: int = 1


@dataclass(frozen=True, slots=True)
class VectorChanges:
    """A part of what happened to vectors after a sequence number: new ones, and items that are gone."""

    numbers: NDArray[np.int64]
    vectors: NDArray[np.float32]
    deleted: NDArray[np.int64]


class VectorRows:
    """The part of the item store that is about vectors and their space."""

    def space(self, connection: Connection, catalog_id: int) -> SpaceRow | None:
        """The semantic space; None until the first vector."""
        row = connection.execute(
            sa.select(schema.spaces).where(schema.spaces.c.catalog_id == catalog_id, schema.spaces.c.space == SEMANTIC)
        ).one_or_none()
        if row is None:
            return None
        state = CenteringState(
            row.vector_count,
            np.frombuffer(row.vector_total, dtype="<f8").copy(),
            None if row.mean is None else np.frombuffer(row.mean, dtype="<f4").copy(),
            row.mean_epoch,
            row.changed_since_mean,
        )
        return SpaceRow(row.fingerprint, row.dimensions, row.metric, state, row.version)

    def put_space(self, connection: Connection, catalog_id: int, space: SpaceRow, *, new: bool) -> None:
        """Writes the semantic space."""
        state = space.centering
        values = {
            "dimensions": space.dimensions,
            "metric": space.metric,
            "fingerprint": space.fingerprint,
            "vector_count": state.count,
            "vector_total": state.total.astype("<f8").tobytes(),
            "mean": None if state.mean is None else state.mean.astype("<f4").tobytes(),
            "mean_epoch": state.epoch,
            "changed_since_mean": state.changed,
        }
        key = {"catalog_id": catalog_id, "space": SEMANTIC, "version": space.version}
        if new:
            connection.execute(schema.spaces.insert().values(**key, **values))
        else:
            where = [schema.spaces.c[name] == value for name, value in key.items()]
            connection.execute(schema.spaces.update().where(*where).values(**values))

    def vectors(
        self, connection: Connection, catalog_id: int, numbers: Sequence[int], dimensions: int
    ) -> NDArray[np.float32]:
        """Raw vectors of some items, shape (n, dimensions), in no promised order; items without one are left out."""
        blobs: list[bytes] = []
        for start in range(0, len(numbers), ID_CHUNK):
            chunk = numbers[start : start + ID_CHUNK]
            query = sa.select(schema.vectors.c.data).where(
                schema.vectors.c.catalog_id == catalog_id, schema.vectors.c.number.in_(chunk)
            )
            blobs.extend(connection.execute(query).scalars())
        return matrix(blobs, dimensions)

    def put_vectors(
        self,
        connection: Connection,
        catalog_id: int,
        sequence: int,
        numbers: Sequence[int],
        vectors: NDArray[np.float32],
        new_numbers: set[int],
    ) -> None:
        """Writes raw vectors: those of `new_numbers` do not exist, the others do."""
        rows = [
            {"b_number": number, "sequence": sequence, "data": vector.astype("<f4").tobytes()}
            for number, vector in zip(numbers, vectors, strict=True)
        ]
        created = [row for row in rows if row["b_number"] in new_numbers]
        changed = [row for row in rows if row["b_number"] not in new_numbers]
        if created:
            statement = schema.vectors.insert().values(catalog_id=catalog_id, number=sa.bindparam("b_number"))
            connection.execute(statement, created)
        if changed:
            where = (schema.vectors.c.catalog_id == catalog_id, schema.vectors.c.number == sa.bindparam("b_number"))
            connection.execute(schema.vectors.update().where(*where), changed)

    def vector_changes(
        self, connection: Connection, catalog_id: int, after: int, dimensions: int, page: int = 2000
    ) -> Iterator[VectorChanges]:
        """What happened to vectors after sequence number `after`, in parts; applying one again changes nothing."""
        gone = self.deleted_after(connection, catalog_id, after)
        if len(gone):
            yield VectorChanges(np.empty(0, np.int64), np.empty((0, dimensions), np.float32), gone)
        c = schema.vectors.c
        query = sa.select(c.sequence, c.number, c.data).where(c.catalog_id == catalog_id)
        yield from paged(connection, query, c, after, dimensions, page)

    def deleted_after(self, connection: Connection, catalog_id: int, after: int) -> NDArray[np.int64]:
        """Numbers of the items that were deleted after sequence number `after`."""
        where = (schema.deletions.c.catalog_id == catalog_id, schema.deletions.c.sequence > after)
        deleted = connection.execute(sa.select(schema.deletions.c.number).where(*where)).scalars()
        return np.fromiter(deleted, dtype=np.int64)

    def forget_deletions(self, connection: Connection, catalog_id: int, up_to: int) -> None:
        """Drops marks that no replay needs any more: every index starts at `up_to` or from nothing."""
        where = (schema.deletions.c.catalog_id == catalog_id, schema.deletions.c.sequence <= up_to)
        connection.execute(schema.deletions.delete().where(*where))


def paged(
    connection: Connection, query: sa.Select[Any], columns: Any, after: int, dimensions: int, page: int
) -> Iterator[VectorChanges]:
    """Vectors of a query over (sequence, number, data) that were written after `after`, in that order, in parts."""
    # Page by page rather than by a cursor, which would outlive a consumer that fails, and its transaction.
    sequence, number = after, _LAST_NUMBER
    while True:
        rows = connection.execute(
            query.where(columns.sequence >= sequence)
            .where(sa.or_(columns.sequence > sequence, columns.number > number))
            .order_by(columns.sequence, columns.number)
            .limit(page)
        ).all()
        if rows:
            numbers = np.asarray([row.number for row in rows], dtype=np.int64)
            yield VectorChanges(numbers, matrix([row.data for row in rows], dimensions), np.empty(0, np.int64))
            sequence, number = rows[-1].sequence, rows[-1].number
        if len(rows) < page:
            return


def matrix(blobs: Sequence[bytes], dimensions: int) -> NDArray[np.float32]:
    """Stored vectors as rows, shape (n, dimensions)."""
    return np.frombuffer(b"".join(blobs), dtype="<f4").reshape(len(blobs), dimensions).astype(np.float32, copy=False)
