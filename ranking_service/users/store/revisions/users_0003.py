"""Rules of a catalogue, and when they were last written."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "users_0003"
down_revision = "users_0002"

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
_TEXT = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")


def upgrade() -> None:
    """Makes the table, and a place for the sequence."""
    op.create_table(
        "rules",
        sa.Column("catalog_key", _KEY, nullable=False),
        sa.Column("rule_id", _TEXT, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("payload", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["catalog_key"], ["catalogs.catalog_key"]),
        sa.PrimaryKeyConstraint("catalog_key", "rule_id"),
    )
    op.add_column("catalogs", sa.Column("rules_sequence", sa.BigInteger(), nullable=False, server_default=sa.text("0")))
