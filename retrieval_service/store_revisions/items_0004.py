"""Named vector spaces beside `semantic`: their versions, their projections and the vectors that were put."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "items_0004"
down_revision = "items_0003"

_KEY = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    """Adds `projections` and `space_vectors`, and what `spaces` says of a version; `semantic` is published."""
    text = sa.Text(collation="C") if op.get_bind().dialect.name == "postgresql" else sa.Text()
    op.add_column("spaces", sa.Column("centered", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("spaces", sa.Column("published", sa.Integer(), nullable=False, server_default="1"))
    op.add_column("spaces", sa.Column("derived_from", text, nullable=False, server_default=sa.text("''")))
    op.create_table(
        "projections",
        sa.Column("catalog_id", _KEY, nullable=False),
        sa.Column("space", text, nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("matrix", sa.LargeBinary(), nullable=False),
        sa.Column("bias", sa.LargeBinary(), nullable=False),
        sa.Column("source_mean", sa.LargeBinary(), nullable=True),
        sa.ForeignKeyConstraint(["catalog_id"], ["catalogs.catalog_id"]),
        sa.PrimaryKeyConstraint("catalog_id", "space", "version"),
    )
    op.create_table(
        "space_vectors",
        sa.Column("catalog_id", _KEY, nullable=False),
        sa.Column("space", text, nullable=False),
        sa.Column("version", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("number", sa.BigInteger(), autoincrement=False, nullable=False),
        sa.Column("sequence", sa.BigInteger(), nullable=False),
        sa.Column("data", sa.LargeBinary(), nullable=False),
        sa.ForeignKeyConstraint(["catalog_id"], ["catalogs.catalog_id"]),
        sa.PrimaryKeyConstraint("catalog_id", "space", "version", "number"),
    )
    op.create_index("space_vectors_by_sequence", "space_vectors", ["catalog_id", "space", "version", "sequence"])
