"""The two stores, opened alike."""

from __future__ import annotations

from ranking_service.users.store.store import UserStore
from retrieval_service.item_store import ItemStore

Store = UserStore | ItemStore


def open_store(store: Store) -> None:
    """Makes the tables of a store, or brings them up to date.

    Raises:
        FailedPrecondition: They are of a newer release.
    """
    if isinstance(store, UserStore):
        store.open()
    else:
        store.create_tables()
