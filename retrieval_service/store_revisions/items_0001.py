"""The first schema of the item store, as the release before Alembic made it. Never changed again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "items_0001"
down_revision = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "catalogs",
        sa.Column("catalog_id", _KEY, autoincrement=True, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("display_name", sa.Text(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("catalog_id"),
        sa.UniqueConstraint("name"),
        sqlite_autoincrement=True,
    )
    op.create_table(
        "dropped_catalogs",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "attribute_kinds",
        sa.Column("catalog_id", _KEY, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["catalog_id"], ["catalogs.catalog_id"]),
        sa.PrimaryKeyConstraint("catalog_id", "name"),
    )
    op.create_table(
        "catalog_head",
        sa.Column("catalog_id", _KEY, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.Column("next_number", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["catalog_id"], ["catalogs.catalog_id"]),
        sa.PrimaryKeyConstraint("catalog_id"),
    )
    op.create_table(
        "deletions",
        sa.Column("catalog_id", _KEY, nullable=False),
        sa.Column("sequence", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.ForeignKeyConstraint(["catalog_id"], ["catalogs.catalog_id"]),
        sa.PrimaryKeyConstraint("catalog_id", "sequence", "number"),
    )
    op.create_table(
        "items",
        sa.Column("catalog_id", _KEY, nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("number", sa.BigInteger(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("passage_hash", sa.LargeBinary(), nullable=False),
        sa.Column("text_truncated", sa.Integer(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["catalog_id"], ["catalogs.catalog_id"]),
        sa.PrimaryKeyConstraint("catalog_id", "item_id"),
        sa.UniqueConstraint("catalog_id", "number"),
    )
    op.create_table(
        "request_ids",
        sa.Column("catalog_id", _KEY, nullable=False),
        sa.Column("request_id", sa.Text(), nullable=False),
        sa.Column("request_hash", sa.LargeBinary(), nullable=False),
        sa.Column("response", sa.LargeBinary(), nullable=False),
        sa.Column("created_at_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["catalog_id"], ["catalogs.catalog_id"]),
        sa.PrimaryKeyConstraint("catalog_id", "request_id"),
    )
    op.create_index("request_ids_by_time", "request_ids", ["created_at_us"], unique=False)
    op.create_table(
        "spaces",
        sa.Column("catalog_id", _KEY, nullable=False),
        sa.Column("space", sa.Text(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("dimensions", sa.Integer(), nullable=False),
        sa.Column("metric", sa.Text(), nullable=False),
        sa.Column("fingerprint", sa.Text(), nullable=False),
        sa.Column("vector_count", sa.BigInteger(), nullable=False),
        sa.Column("vector_total", sa.LargeBinary(), nullable=False),
        sa.Column("mean", sa.LargeBinary(), nullable=True),
        sa.Column("mean_epoch", sa.BigInteger(), nullable=False),
        sa.Column("changed_since_mean", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["catalog_id"], ["catalogs.catalog_id"]),
        sa.PrimaryKeyConstraint("catalog_id", "space", "version"),
    )
    op.create_table(
        "vectors",
        sa.Column("catalog_id", _KEY, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["catalog_id"], ["catalogs.catalog_id"]),
        sa.PrimaryKeyConstraint("catalog_id", "number"),
    )
    op.create_index("vectors_by_sequence", "vectors", ["catalog_id", "sequence"], unique=False)
