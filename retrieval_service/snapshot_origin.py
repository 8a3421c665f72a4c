"""What a snapshot says of the store it was made from."""

from __future__ import annotations

import sqlalchemy as sa

from retrieval_service import store_schema as schema
from retrieval_service.item_store import ItemStore
from retrieval_service.vector_rows import Connection

RESTORED = "restored"
"""Name of the fact by which each restore of a backup makes a store another one than it was."""


def snapshot_origin(store: ItemStore, connection: Connection, catalog_id: int) -> str:
    """Tells the catalogue from one of the same number in another store, and from its own lost future after a restore.

    It is when the catalogue was made, in microseconds, and which restore brought it here, if any.
    """
    made = {row.catalog_id: row.created_at_us for row in store.catalogs(connection)}
    facts = schema.store_facts
    restored = connection.execute(sa.select(facts.c.value).where(facts.c.name == RESTORED)).scalar_one_or_none()
    return ":".join([str(made.get(catalog_id, "")), *([restored] if restored else [])])
