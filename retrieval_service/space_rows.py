"""The spaces beside `semantic` in SQL: versions, projections, and the vectors that were put into them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from retrieval_service import store_schema as schema
from retrieval_service.named_spaces import SEMANTIC, IndexKey, LiveSpaces, NamedSpace, Projection
from retrieval_service.vector_rows import ID_CHUNK, Connection, VectorChanges, paged


class SpaceRows:
    """The part of the item store that is about spaces beside `semantic`."""

    # ---- versions

    def named_spaces(self, connection: Connection, catalog_id: int) -> LiveSpaces:
        """The live versions of a catalogue's spaces, in the order of their names and versions."""
        c = schema.spaces.c
        rows = connection.execute(
            sa.select(
                *(c.space, c.version, c.dimensions, c.metric, c.centered, c.fingerprint),
                *(c.derived_from, c.published, c.mean),
            )
            .where(c.catalog_id == catalog_id, c.space != SEMANTIC)
            .order_by(c.space, c.version)
        )
        return LiveSpaces(
            tuple(
                NamedSpace(
                    row.space,
                    row.version,
                    row.dimensions,
                    row.metric,
                    bool(row.centered),
                    row.fingerprint,
                    row.derived_from,
                    bool(row.published),
                    _numbers(row.mean),
                )
                for row in rows
            )
        )

    def create_space(
        self, connection: Connection, catalog_id: int, space: NamedSpace, projection: Projection | None
    ) -> None:
        """Writes a new version."""
        connection.execute(
            schema.spaces.insert().values(
                catalog_id=catalog_id,
                space=space.space,
                version=space.version,
                dimensions=space.dimensions,
                metric=space.metric,
                fingerprint=space.fingerprint,
                # Only `semantic` keeps a running sum: the mean of the others is fixed once.
                vector_count=0,
                vector_total=b"",
                mean=_blob(space.mean),
                mean_epoch=space.epoch,
                changed_since_mean=0,
                centered=int(space.centered),
                published=int(space.published),
                derived_from=space.derived_from,
            )
        )
        if projection is not None:
            connection.execute(
                schema.projections.insert().values(
                    catalog_id=catalog_id,
                    space=space.space,
                    version=space.version,
                    matrix=_blob(projection.matrix),
                    bias=_blob(projection.bias),
                    source_mean=_blob(projection.source_mean),
                )
            )

    def fix_space_mean(self, connection: Connection, key: IndexKey, mean: NDArray[np.float32]) -> None:
        """Sets the mean of a version that has none; one that is set stays."""
        where = (*_of(schema.spaces, key), schema.spaces.c.mean.is_(None))
        connection.execute(schema.spaces.update().where(*where).values(mean=_blob(mean), mean_epoch=1))

    def publish_space(self, connection: Connection, key: IndexKey) -> None:
        """Makes a version the published one of its space."""
        c = schema.spaces.c
        of_space = schema.spaces.update().where(c.catalog_id == key.catalog_id, c.space == key.space)
        connection.execute(of_space.values(published=sa.case((c.version == key.version, 1), else_=0)))

    def drop_space(self, connection: Connection, key: IndexKey) -> None:
        """Deletes a version with its vectors."""
        for table in (schema.space_vectors, schema.projections, schema.spaces):
            connection.execute(table.delete().where(*_of(table, key)))

    def projection(self, connection: Connection, space: NamedSpace, catalog_id: int) -> Projection | None:
        """The map of a version; None when it has none."""
        key = IndexKey(catalog_id, space.space, space.version)
        row = connection.execute(sa.select(schema.projections).where(*_of(schema.projections, key))).one_or_none()
        if row is None:
            return None
        weights, bias = _numbers(row.matrix), _numbers(row.bias)
        assert weights is not None
        assert bias is not None
        return Projection(weights.reshape(space.dimensions, -1), bias, _numbers(row.source_mean))

    # ---- vectors

    def put_space_vectors(
        self,
        connection: Connection,
        key: IndexKey,
        sequence: int,
        numbers: Sequence[int],
        vectors: NDArray[np.float32],
    ) -> None:
        """Writes vectors in place of those that the items have in the version."""
        there = self.with_put_vector(connection, key, numbers)
        rows = [
            {"b_number": number, "sequence": sequence, "data": _blob(vector)}
            for number, vector in zip(numbers, vectors, strict=True)
        ]
        created = [row for row in rows if row["b_number"] not in there]
        changed = [row for row in rows if row["b_number"] in there]
        if created:
            names = {"catalog_id": key.catalog_id, "space": key.space, "version": key.version}
            statement = schema.space_vectors.insert().values(**names, number=sa.bindparam("b_number"))
            connection.execute(statement, created)
        if changed:
            where = (*_of(schema.space_vectors, key), schema.space_vectors.c.number == sa.bindparam("b_number"))
            connection.execute(schema.space_vectors.update().where(*where), changed)

    def with_put_vector(self, connection: Connection, key: IndexKey, numbers: Sequence[int]) -> set[int]:
        """Those of the items that had a vector put."""
        found: set[int] = set()
        c = schema.space_vectors.c
        for start in range(0, len(numbers), ID_CHUNK):
            chunk = numbers[start : start + ID_CHUNK]
            query = sa.select(c.number).where(*_of(schema.space_vectors, key), c.number.in_(chunk))
            found.update(connection.execute(query).scalars())
        return found

    def delete_space_vectors(self, connection: Connection, key: IndexKey, numbers: Sequence[int]) -> None:
        """Deletes what was put for items that are gone."""
        where = (*_of(schema.space_vectors, key), schema.space_vectors.c.number == sa.bindparam("b_number"))
        connection.execute(schema.space_vectors.delete().where(*where), [{"b_number": n} for n in numbers])

    def put_vector_count(self, connection: Connection, key: IndexKey) -> int:
        """How many items had a vector put."""
        query = sa.select(sa.func.count()).select_from(schema.space_vectors).where(*_of(schema.space_vectors, key))
        return int(connection.execute(query).scalar_one())

    def put_vectors_after(
        self, connection: Connection, key: IndexKey, after: int, dimensions: int, page: int = 2000
    ) -> Iterator[VectorChanges]:
        """Vectors that were put after sequence number `after`, in parts."""
        c = schema.space_vectors.c
        query = sa.select(c.sequence, c.number, c.data).where(*_of(schema.space_vectors, key))
        yield from paged(connection, query, c, after, dimensions, page)

    def semantic_vectors_not_put(
        self, connection: Connection, key: IndexKey, after: int, semantic_dimensions: int, page: int = 2000
    ) -> Iterator[VectorChanges]:
        """Semantic vectors, raw, written after `after`, of the items without a vector of their own in a version."""
        v, put = schema.vectors.c, schema.space_vectors
        own = sa.select(put.c.number).where(*_of(put, key), put.c.number == v.number)
        query = sa.select(v.sequence, v.number, v.data).where(v.catalog_id == key.catalog_id, ~own.exists())
        yield from paged(connection, query, v, after, semantic_dimensions, page)


def _of(table: sa.Table, key: IndexKey) -> tuple[sa.ColumnElement[bool], ...]:
    return (table.c.catalog_id == key.catalog_id, table.c.space == key.space, table.c.version == key.version)


def _blob(values: NDArray[np.float32] | None) -> bytes | None:
    return None if values is None else values.astype("<f4").tobytes()


def _numbers(blob: bytes | None) -> NDArray[np.float32] | None:
    return None if blob is None else np.frombuffer(blob, dtype="<f4").copy()
