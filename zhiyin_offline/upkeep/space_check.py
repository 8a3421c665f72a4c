"""Proves that the spaces beside `semantic` agree with the items: versions, projections, the vectors that were put."""

from __future__ import annotations

import numpy as np
import sqlalchemy as sa
from numpy.typing import NDArray

from retrieval_service import store_schema as schema
from retrieval_service.index_source import index_source
from retrieval_service.item_store import CatalogRow, ItemStore
from retrieval_service.named_spaces import MAX_COMPONENT, SEMANTIC, IndexKey, NamedSpace
from retrieval_service.vector_rows import Connection
from zhiyin_offline.upkeep.findings import Report
from zhiyin_offline.upkeep.item_store_check import Faults

_LENGTH_TOLERANCE = 1e-3


def check_spaces(store: ItemStore, connection: Connection, row: CatalogRow, report: Report) -> list[IndexKey]:
    """Every live version, and that nothing is left of those that are gone.

    Returns:
        The versions whose vectors can be read, and so be compared with an index.
    """
    spaces = list(store.named_spaces(connection, row.catalog_id))
    live = {(space.space, space.version) for space in spaces}
    wrong = Faults(report, f"item store, catalogue {row.name}")
    for table in (schema.space_vectors, schema.projections):
        of = sa.select(table.c.space, table.c.version).where(table.c.catalog_id == row.catalog_id).distinct()
        left = {tuple(found) for found in connection.execute(of)} - live
        wrong.note(f"space versions in {table.name} that do not exist", len(left))
    published = [space.space for space in spaces if space.published]
    wrong.note("spaces with more than one published version", len(published) - len(set(published)))
    wrong.tell()
    return [
        IndexKey(row.catalog_id, space.space, space.version)
        for space in spaces
        if _check_version(store, connection, row, space, report)
    ]


def _check_version(
    store: ItemStore, connection: Connection, row: CatalogRow, space: NamedSpace, report: Report
) -> bool:
    """Whether its vectors can be read."""
    where = f"item store, catalogue {row.name}, space {space.space} version {space.version}"
    key = IndexKey(row.catalog_id, space.space, space.version)
    wrong = Faults(report, where)
    items = set(connection.execute(_numbers_of(schema.items, row.catalog_id)).scalars())
    c = schema.space_vectors.c
    of_version = (c.catalog_id == key.catalog_id, c.space == key.space, c.version == key.version)
    sizes = connection.execute(sa.select(c.number, c.sequence, sa.func.length(c.data)).where(*of_version)).all()
    head = store.sequence(connection, row.catalog_id)
    misfits = sum(size != 4 * space.dimensions for _, _, size in sizes)
    wrong.note("vectors of another size", misfits)
    wrong.note("vectors of no item", sum(number not in items for number, _, _ in sizes))
    wrong.note("vectors put after the last write", sum(sequence > head for _, sequence, _ in sizes))
    unmapped = bool(space.derived_from) and not _projection_fits(store, connection, row.catalog_id, space)
    wrong.note("projections that are missing or of another size", int(unmapped))
    if misfits or unmapped:  # cannot be read any further
        wrong.tell()
        return False
    source, covered = index_source(store, connection, key), set[int]()
    for part in source.changes(0) if source is not None else ():
        finite = np.isfinite(part.vectors).all(axis=1)
        wrong.note("vectors with values that are no numbers", int((~finite).sum()))
        vectors = part.vectors[finite].astype(np.float64)
        lengths = np.linalg.norm(vectors, axis=1)
        if space.normalize:
            # A projection can be zero, where it has nothing to say of an item.
            odd = (np.abs(lengths - 1) > _LENGTH_TOLERANCE) & ((lengths > 0) | (not space.derived_from))
            wrong.note("vectors of another length than 1", int(odd.sum()))
        else:
            beyond = np.abs(vectors).max(axis=1, initial=0.0) > MAX_COMPONENT * (1 + _LENGTH_TOLERANCE)
            wrong.note(f"vectors with components beyond {MAX_COMPONENT:g}", int(beyond.sum()))
        covered.update(part.numbers.tolist())
    if space.derived_from:
        wrong.note("items without a vector", len(items - covered))
    wrong.tell()
    every = ", one for every item" if space.derived_from else ""
    report.proved.append(f"{where}: {len(covered)} vectors of {space.dimensions} components, {len(sizes)} put{every}")
    return True


def vectors_of(
    store: ItemStore, connection: Connection, key: IndexKey, numbers: list[int]
) -> dict[int, NDArray[np.float32]]:
    """The vectors that the store has for some items in an index, as they entered it."""
    semantic = _stored(connection, schema.vectors, (schema.vectors.c.catalog_id == key.catalog_id,), numbers)
    if key.semantic:
        return semantic
    space = store.named_spaces(connection, key.catalog_id).version(key.space, key.version)
    found: dict[int, NDArray[np.float32]] = {}
    projection = store.projection(connection, space, key.catalog_id)
    if projection is not None and semantic:
        rows = projection.vectors(np.stack(list(semantic.values())), space)
        found.update(zip(semantic, rows, strict=True))
    c = schema.space_vectors.c
    of_version = (c.catalog_id == key.catalog_id, c.space == key.space, c.version == key.version)
    return found | _stored(connection, schema.space_vectors, of_version, numbers)


def _stored(
    connection: Connection, table: sa.Table, where: tuple[sa.ColumnElement[bool], ...], numbers: list[int]
) -> dict[int, NDArray[np.float32]]:
    query = sa.select(table.c.number, table.c.data).where(*where, table.c.number.in_(numbers))
    return {row.number: np.frombuffer(bytes(row.data), "<f4") for row in connection.execute(query)}


def _projection_fits(store: ItemStore, connection: Connection, catalog_id: int, space: NamedSpace) -> bool:
    semantic = store.space(connection, catalog_id)
    c = schema.projections.c
    sizes = connection.execute(
        sa.select(sa.func.length(c.matrix), sa.func.length(c.bias), sa.func.length(c.source_mean)).where(
            c.catalog_id == catalog_id, c.space == space.space, c.version == space.version
        )
    ).one_or_none()
    if sizes is None or semantic is None or space.derived_from != SEMANTIC:
        return False
    matrix, bias, mean = sizes
    wide = 4 * semantic.dimensions
    return bool(matrix == space.dimensions * wide and bias == 4 * space.dimensions and mean in (None, wide))


def _numbers_of(table: sa.Table, catalog_id: int) -> sa.Select[tuple[int]]:
    return sa.select(table.c.number).where(table.c.catalog_id == catalog_id)
