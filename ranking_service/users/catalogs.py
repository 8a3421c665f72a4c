"""Which catalogues the user store knows. The retrieval service owns catalogues; the hot path must not wait for it.

A name that was accepted once is kept in the store and never asked about again. So events keep coming in while the
retrieval service is down, and a catalogue that was dropped there goes on taking events here; its users, events and
rules stay until they are erased, and count again when a catalogue of that name is made.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial

from ranking_service.users.store.store import UserStore, add_catalog
from ranking_service.users.user import Change
from service_runtime.errors import NotFound
from service_runtime.sql_writer import SqlWriter

CatalogLookup = Callable[[str], Awaitable[bool]]
"""Whether the retrieval service knows a catalogue. Asked only for names that the user store has never heard of."""

_JOB_BYTES = 256


class KnownCatalogs:
    """Store keys of the catalogues, by name.

    Args:
        on_new: Told name and key of a catalogue before anything is written to it.
    """

    def __init__(
        self,
        store: UserStore,
        writer: SqlWriter[Change],
        lookup: CatalogLookup,
        on_new: Callable[[str, int], None],
    ) -> None:
        self._store = store
        self._writer = writer
        self._lookup = lookup
        self._on_new = on_new
        self._keys: dict[str, int] = {}

    def load(self) -> dict[str, int]:
        """Reads the known names from the store."""
        self._keys = self._store.catalogs()
        return dict(self._keys)

    def known(self) -> dict[str, int]:
        """Key by name of the known catalogues."""
        return dict(self._keys)

    async def key(self, name: str) -> int:
        """The key of a catalogue.

        Raises:
            NotFound: Neither the store nor the retrieval service knows it.
            DependencyUnavailable: The name is new and the retrieval service does not answer.
        """
        key = self._keys.get(name)
        if key is not None:
            return key
        if not await self._lookup(name):
            raise NotFound("catalog", name)
        change = await self._writer.submit(partial(add_catalog, name=name), _JOB_BYTES)
        if name not in self._keys:
            self._on_new(name, change.catalog_key)
            self._keys[name] = change.catalog_key
        return change.catalog_key
