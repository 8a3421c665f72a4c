"""The stores of a deployment as a record to learn from. Read only, beside services; user ids stay where they are."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranking_service.users.event import Erasure
from ranking_service.users.store.store import UserStore
from retrieval_service.item_store import ItemStore
from service_runtime.attributes import AttributeScalar, to_proto
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1.ranking_service_pb2 import User
from zhiyin_offline.evaluation.dataset import NO_CONTEXT, Dataset, EventRows
from zhiyin_offline.upkeep.locations import Locations
from zhiyin_offline.upkeep.stores import open_store

_PAGE = 1_000


class CatalogUnknown(Exception):
    """Neither store knows the catalogue, or it holds nothing."""


@dataclass(frozen=True)
class Record:
    """A catalogue as it was at one moment.

    Attributes:
        dataset: Items, events and users' attributes; a user's id is the store's number for them.
        vectors: Raw vector of each item, zeros for an item without one, shape (items, d).
        fingerprint: Of the semantic space.
    """

    dataset: Dataset
    vectors: NDArray[np.float32]
    fingerprint: str


def read_record(locations: Locations, catalog: str) -> Record:
    """Reads both stores.

    Raises:
        CatalogUnknown: There is nothing to learn from.
        FailedPrecondition: A store is of a newer release.
    """
    for url, file in ((locations.item_store_url, locations.item_file), (locations.user_store_url, locations.user_file)):
        if not url and not file.is_file():
            raise CatalogUnknown(f"{file} does not exist: {locations.root} is no data directory of running services")
    items, vectors, fingerprint = read_items(locations, catalog)
    numbers = {item.id: number for number, item in enumerate(items)}
    rows, users = EventRows(numbers), dict[int, int]()
    store = UserStore(locations.users)
    open_store(store)
    try:
        key = store.catalogs().get(catalog)
        if key is None:
            raise CatalogUnknown(f"catalogue {catalog} has no events")
        contexts = dict(store.contexts(key))
        for page, _ in store.read_log(key, 0):
            for entry in page:
                if not isinstance(entry, Erasure):  # erased events are not in the log any more
                    user = users.setdefault(entry.user_key, len(users))
                    context = contexts.get(entry.sequence, NO_CONTEXT)
                    rows.add(user, entry.item_id, entry.event_type, entry.value, entry.time, context)
        profiles = {str(of): _profile(told) for of, told in store.user_attributes(key).items() if of in users}
    finally:
        store.close()
    return Record(Dataset(items, tuple(str(key) for key in users), profiles, rows.events()), vectors, fingerprint)


def _profile(told: Mapping[str, AttributeScalar]) -> User:
    """Of a user their attributes. What they say in words and whom they follow is nothing that is learned from."""
    user = User()
    to_proto(told, user.attributes)
    return user


def read_items(locations: Locations, catalog: str) -> tuple[tuple[Item, ...], NDArray[np.float32], str]:
    """The items of a catalogue, the raw vector of each, shape (items, d), and the fingerprint of their space.

    Raises:
        CatalogUnknown: It holds no items.
        FailedPrecondition: The store is of a newer release.
    """
    store = ItemStore(locations.items)
    open_store(store)
    try:
        with store.reading() as connection:
            row = store.catalog(connection, catalog)
            space = None if row is None else store.space(connection, row.catalog_id)
            if row is None or space is None:
                raise CatalogUnknown(f"catalogue {catalog} holds no items")
            items: list[Item] = []
            place: dict[int, int] = {}
            after = ""
            while page := store.items_after(connection, row.catalog_id, after, _PAGE):
                for stored in page:
                    place[stored.number] = len(items)
                    items.append(Item.FromString(stored.payload))
                after = page[-1].item_id
            vectors = np.zeros((len(items), space.dimensions), np.float32)
            for changes in store.vector_changes(connection, row.catalog_id, 0, space.dimensions):
                there = [i for i, number in enumerate(changes.numbers.tolist()) if number in place]
                vectors[[place[int(changes.numbers[i])] for i in there]] = changes.vectors[there]
    finally:
        store.close()
    return tuple(items), vectors, space.fingerprint
