"""The tables of the item store as the newest of `store_revisions` leaves them. A change here needs a new revision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy import BigInteger, Column, ForeignKey, Integer, LargeBinary, MetaData, Table, UniqueConstraint

from service_runtime.migrations import StoreSchema

SCHEMA = StoreSchema(
    name="item store",
    folder=Path(__file__).parent / "store_revisions",
    revisions=("items_0001", "items_0002", "items_0003", "items_0004"),
    first_tables=frozenset(
        {
            "catalogs",
            "catalog_head",
            "dropped_catalogs",
            "attribute_kinds",
            "spaces",
            "items",
            "vectors",
            "deletions",
            "request_ids",
        }
    ),
)

metadata = MetaData()
# The order of the bytes, everywhere: it is SQLite's, and PostgreSQL's own depends on the locale.
Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
_id = BigInteger().with_variant(Integer, "sqlite")  # SQLite: only INTEGER PRIMARY KEY is the row id


def _catalog_id(**options: Any) -> Column[int]:
    return Column("catalog_id", _id, ForeignKey("catalogs.catalog_id"), nullable=False, **options)


catalogs = Table(
    "catalogs",
    metadata,
    Column("catalog_id", _id, primary_key=True, autoincrement=True),
    Column("name", Text, nullable=False, unique=True),
    Column("display_name", Text, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    Column("max_items", BigInteger, nullable=False, server_default="0"),  # 0: no limit of its own
    sqlite_autoincrement=True,  # the id of a dropped catalogue never comes back
)
head = Table(
    "catalog_head",
    metadata,
    _catalog_id(primary_key=True),
    Column("seq", BigInteger, nullable=False),
    Column("next_number", BigInteger, nullable=False),
)
dropped = Table(
    "dropped_catalogs",
    metadata,
    Column("name", Text, primary_key=True),
    Column("seq", BigInteger, nullable=False),
)
attribute_kinds = Table(
    "attribute_kinds",
    metadata,
    _catalog_id(primary_key=True),
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
)
spaces = Table(
    "spaces",
    metadata,
    _catalog_id(primary_key=True),
    Column("space", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True),
    Column("dimensions", Integer, nullable=False),
    Column("metric", Text, nullable=False),
    Column("fingerprint", Text, nullable=False),
    Column("vector_count", BigInteger, nullable=False),
    Column("vector_total", LargeBinary, nullable=False),  # float64, for the mean
    Column("mean", LargeBinary),  # float32, what is subtracted; NULL: nothing
    Column("mean_epoch", BigInteger, nullable=False),
    Column("changed_since_mean", BigInteger, nullable=False),
    Column("centered", Integer, nullable=False, server_default="1"),
    Column("published", Integer, nullable=False, server_default="1"),
    Column("derived_from", Text, nullable=False, server_default=sa.text("''")),
)
# Apart from `spaces`: a map has hundreds of kilobytes, and SQLite writes a row anew as a whole.
projections = Table(
    "projections",
    metadata,
    _catalog_id(primary_key=True),
    Column("space", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("matrix", LargeBinary, nullable=False),  # float32, little-endian, (dimensions, semantic dimensions)
    Column("bias", LargeBinary, nullable=False),  # float32, (dimensions,)
    Column("source_mean", LargeBinary),  # float32, (semantic dimensions,); NULL: nothing is subtracted
)
# Vectors that were put into the spaces beside `semantic`; what is projected is not stored.
space_vectors = Table(
    "space_vectors",
    metadata,
    _catalog_id(primary_key=True),
    Column("space", Text, primary_key=True),
    Column("version", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),  # float32, little-endian; of length 1 where the metric is cosine
    sa.Index("space_vectors_by_sequence", "catalog_id", "space", "version", "sequence"),
)
items = Table(
    "items",
    metadata,
    _catalog_id(primary_key=True),
    Column("item_id", Text, primary_key=True),
    Column("number", BigInteger, nullable=False),
    Column("revision", BigInteger, nullable=False),
    Column("sequence", BigInteger, nullable=False),
    Column("passage_hash", LargeBinary, nullable=False),
    Column("text_truncated", Integer, nullable=False),
    Column("payload", LargeBinary, nullable=False),  # zhiyin.common.v1.Item
    UniqueConstraint("catalog_id", "number"),
)
vectors = Table(
    "vectors",
    metadata,
    _catalog_id(primary_key=True),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
    Column("sequence", BigInteger, nullable=False),
    Column("data", LargeBinary, nullable=False),  # float32, little-endian, as the encoder gave it: not centred
    sa.Index("vectors_by_sequence", "catalog_id", "sequence"),
)
deletions = Table(
    "deletions",
    metadata,
    _catalog_id(primary_key=True),
    Column("sequence", BigInteger, primary_key=True, autoincrement=False),
    Column("number", BigInteger, primary_key=True, autoincrement=False),
)
request_ids = Table(
    "request_ids",
    metadata,
    _catalog_id(primary_key=True),
    Column("request_id", Text, primary_key=True),
    Column("request_hash", LargeBinary, nullable=False),
    Column("response", LargeBinary, nullable=False),
    Column("created_at_us", BigInteger, nullable=False),
    sa.Index("request_ids_by_time", "created_at_us"),
)
store_facts = Table(
    "store_facts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)
