"""A limit of items for each catalogue."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "items_0003"
down_revision = "items_0002"


def upgrade() -> None:
    """Adds `catalogs.max_items`; 0 is no limit."""
    op.add_column("catalogs", sa.Column("max_items", sa.BigInteger(), nullable=False, server_default="0"))
