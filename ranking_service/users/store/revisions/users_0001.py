"""The first schema of the user store, as the release before Alembic made it. Never changed again."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "users_0001"
down_revision = None

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Makes the tables."""
    op.create_table(
        "catalogs",
        sa.Column("catalog_key", _KEY, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("catalog_key"),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "store_facts",
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("value", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("name"),
    )
    op.create_table(
        "attribute_kinds",
        sa.Column("catalog_key", _KEY, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["catalog_key"], ["catalogs.catalog_key"]),
        sa.PrimaryKeyConstraint("catalog_key", "name"),
    )
    op.create_table(
        "erasures",
        sa.Column("catalog_key", _KEY, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("user_key", _KEY, nullable=False),
        sa.ForeignKeyConstraint(["catalog_key"], ["catalogs.catalog_key"]),
        sa.PrimaryKeyConstraint("catalog_key", "sequence"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "events",
        sa.Column("catalog_key", _KEY, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("event_id", sa.Text(), nullable=False),
        sa.Column("digest", sa.LargeBinary(), nullable=False),
        sa.Column("user_key", _KEY, nullable=False),
        sa.Column("event_type", sa.SmallInteger(), nullable=False),
        sa.Column("item_id", sa.Text(), nullable=False),
        sa.Column("value", sa.Float(precision=53), nullable=True),
        sa.Column("time_us", sa.BigInteger(), nullable=False),
        sa.Column("session_id", sa.Text(), nullable=False),
        sa.Column("text", sa.Text(), nullable=False),
        sa.Column("context", sa.Text(), nullable=True),
        sa.Column("attribution_token", sa.Text(), nullable=False),
        sa.Column("list_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["catalog_key"], ["catalogs.catalog_key"]),
        sa.PrimaryKeyConstraint("catalog_key", "sequence"),
        sa.UniqueConstraint("catalog_key", "event_id"),
        sqlite_with_rowid=False,
    )
    op.create_index("events_by_user", "events", ["user_key", "time_us", "sequence"], unique=False)
    op.create_table(
        "users",
        sa.Column("user_key", _KEY, nullable=False),
        sa.Column("catalog_key", _KEY, nullable=False),
        sa.Column("user_id", sa.Text(), nullable=False),
        sa.Column("profile", sa.Text(), nullable=False),
        sa.Column("attributes", sa.Text(), nullable=False),
        sa.Column("revision", sa.BigInteger(), nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("event_count", sa.BigInteger(), nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("updated_us", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["catalog_key"], ["catalogs.catalog_key"]),
        sa.PrimaryKeyConstraint("user_key"),
        sa.UniqueConstraint("catalog_key", "user_id"),
        sqlite_autoincrement=True,
    )
    op.create_index("users_by_sequence", "users", ["catalog_key", "sequence"], unique=False)
    op.create_table(
        "follows",
        sa.Column("user_key", _KEY, nullable=False),
        sa.Column("position", sa.Integer(), nullable=False),
        sa.Column("followed_id", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(["user_key"], ["users.user_key"]),
        sa.PrimaryKeyConstraint("user_key", "position"),
    )
    op.create_index("follows_by_followed", "follows", ["followed_id"], unique=False)
