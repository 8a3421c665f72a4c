"""On PostgreSQL the order of the bytes for every text; and the release before Alembic is kept away.

The order of a locale changes with the system's C library, which leaves an index behind that no longer finds its rows.
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "users_0002"
down_revision = "users_0001"

_TEXTS = {
    "store_facts": ("name", "value"),
    "catalogs": ("name",),
    "users": ("user_id", "profile", "attributes"),
    "follows": ("followed_id",),
    "attribute_kinds": ("name", "kind"),
    "events": ("event_id", "item_id", "session_id", "text", "context", "attribution_token", "list_id"),
}


def upgrade() -> None:
    """Changes the collation, and the number by which the release before Alembic knows its schema."""
    if op.get_bind().dialect.name == "postgresql":
        for table, columns in _TEXTS.items():
            for column in columns:
                op.alter_column(table, column, type_=sa.Text(collation="C"))
    facts = sa.table("store_facts", sa.column("name", sa.Text), sa.column("value", sa.Text))
    op.execute(facts.update().where(facts.c.name == "schema_version").values(value="2"))
