"""What a snapshot says of the store it was made from."""

from __future__ import annotations

from retrieval_service.item_store import ItemStore
from retrieval_service.vector_rows import Connection


def snapshot_origin(store: ItemStore, connection: Connection, catalog_id: int) -> str:
    """Tells the catalogue from one of the same number in another store: when it was made, in microseconds."""
    made = {row.catalog_id: row.created_at_us for row in store.catalogs(connection)}
    return str(made.get(catalog_id, ""))
