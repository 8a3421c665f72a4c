"""Facts about the store; on PostgreSQL the order of the bytes for every text.

The order of a locale would page items in another order than SQLite does, and changes with the system's C library, which
leaves an index behind that no longer finds its rows.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "items_0002"
down_revision = "items_0001"

_TEXTS = {
    "catalogs": ("name", "display_name"),
    "dropped_catalogs": ("name",),
    "attribute_kinds": ("name", "kind"),
    "spaces": ("space", "metric", "fingerprint"),
    "items": ("item_id",),
    "request_ids": ("request_id",),
}


def upgrade() -> None:
    """Adds `store_facts`."""
    postgresql = op.get_bind().dialect.name == "postgresql"
    text = sa.Text(collation="C") if postgresql else sa.Text()
    op.create_table(
        "store_facts",
        sa.Column("name", text, primary_key=True),
        sa.Column("value", text, nullable=False),
    )
    if postgresql:
        for table, columns in _TEXTS.items():
            for column in columns:
                op.alter_column(table, column, type_=text)
