"""Files of events as a record to learn from, for a catalogue that runs: what happened elsewhere, or before."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1.ranking_service_pb2 import EVENT_TYPE_SEARCH
from zhiyin_offline.evaluation.dataset import Dataset, read_dataset
from zhiyin_offline.training.store_record import CatalogUnknown, Record, read_items
from zhiyin_offline.upkeep.locations import Locations

Encode = Callable[[Sequence[Item]], tuple[NDArray[np.float32], str]]
"""Raw vector of each item, shape (items, d), and the fingerprint of their space."""

# Below this share of the events, ids are perhaps not those of the catalogue.
_MOST = 0.5


def read_files(
    folder: Path, locations: Locations, catalog: str, encode: Encode, say: Callable[[str], None] = lambda _: None
) -> Record:
    """Reads the events of a folder into a catalogue of a deployment.

    Items of the catalogue are as its store has them, with their vectors: these are what will be recommended. Items that
    only the files know teach too; their words are encoded anew.

    Args:
        folder: Files as `read_dataset` takes them; `items` only adds what the catalogue does not hold.
        locations: Of the deployment. Its store of users is not read.
        catalog: Whose items the events are about.
        encode: Encodes items that the catalogue does not hold.
        say: Told how much of the files fits the catalogue.

    Raises:
        CatalogUnknown: The catalogue holds no items, or none that anything happened to in the files.
        ImportFailed: A file is missing or a row cannot be read.
        FailedPrecondition: The store is of a newer release.
    """
    if not locations.item_store_url and not locations.item_file.is_file():
        raise CatalogUnknown(f"{locations.item_file} does not exist: {locations.root} is no data directory of services")
    items, vectors, fingerprint = read_items(locations, catalog)
    dataset = read_dataset(folder, items)
    say(_fit(dataset, len(items), folder, catalog))
    added = dataset.items[len(items) :]
    if added:
        vectors = np.concatenate([vectors, _of_added(added, vectors.shape[1], fingerprint, encode, say)])
    return Record(dataset, vectors, fingerprint)


def _fit(dataset: Dataset, held: int, folder: Path, catalog: str) -> str:
    """How much of what happened, happened to items of the catalogue.

    Raises:
        CatalogUnknown: Nothing did.
    """
    happened_to = np.maximum(dataset.events.item, dataset.events.shown)
    fitting = (happened_to >= 0) & (happened_to < held)
    count, items = int(np.count_nonzero(fitting)), len(np.unique(happened_to[fitting]))
    events = int(np.count_nonzero(dataset.events.event_type != EVENT_TYPE_SEARCH))
    if not count:
        raise CatalogUnknown(
            f"none of the {events:,} events in {folder} is about an item of catalogue {catalog}: "
            "their item ids must be those of the catalogue"
        )
    text = (
        f"{count:,} of {events:,} events in {folder} are about {items:,} of the {held:,} items of catalogue {catalog}"
    )
    return text if count >= _MOST * events else f"only {text}: are their item ids those of the catalogue?"


def _of_added(
    added: Sequence[Item], dimensions: int, fingerprint: str, encode: Encode, say: Callable[[str], None]
) -> NDArray[np.float32]:
    """Vectors of items that only the files know; zeros where they cannot be compared with those of the catalogue."""
    vectors, of_model = encode(added)
    if of_model == fingerprint:
        return vectors
    say(
        f"{len(added):,} items of the files are not in the catalogue, and the model that would read their words is not "
        "the one that reads those of the catalogue (--model names it): they are learned from without their words"
    )
    return np.zeros((len(added), dimensions), np.float32)
