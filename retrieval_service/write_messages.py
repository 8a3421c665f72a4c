"""What a write asks for, what came of it, and what those who keep derived state are told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval_service.directory import ItemChange
from retrieval_service.index_messages import IndexChange
from retrieval_service.item import Item
from retrieval_service.item_store import CatalogRow
from retrieval_service.space_messages import SpacesChanged, VectorsPut
from retrieval_service.vector_rows import SpaceRow


@dataclass(frozen=True, slots=True)
class UpsertBatch:
    """A checked batch of items.

    Attributes:
        catalog: Name of the catalogue.
        items: With different ids.
        mask: Fields that change; None: items are replaced whole.
        check_revision: Whether each item's revision must be that of the stored one.
        request_id: For deduplication; empty: none.
        request_hash: Of the whole request.
        size_bytes: Of the request.
    """

    catalog: str
    items: tuple[Item, ...]
    mask: frozenset[str] | None = None
    check_revision: bool = False
    request_id: str = ""
    request_hash: bytes = b""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class DeleteBatch:
    """Items to delete; the fields mean what they mean in UpsertBatch."""

    catalog: str
    item_ids: tuple[str, ...]
    request_id: str = ""
    request_hash: bytes = b""
    size_bytes: int = 0


@dataclass(frozen=True, slots=True)
class ItemWrite:
    """What became of one item."""

    item_id: str
    revision: int
    created: bool
    text_truncated: bool


@dataclass(frozen=True, slots=True)
class UpsertOutcome:
    """What became of a batch."""

    sequence: int
    results: tuple[ItemWrite, ...]


@dataclass(frozen=True, slots=True)
class DeleteOutcome:
    """What became of a deletion."""

    sequence: int
    deleted: int
    missing: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class EncodedPassage:
    """A vector, raw, shape (dimensions,), and the space it lives in."""

    vector: NDArray[np.float32]
    truncated: bool
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ItemsCommitted:
    """A committed write for those who keep what is derived: directory and index.

    Attributes:
        change: For the semantic index; None: nothing was written (a repeated request, nothing to delete).
        items: For the directory.
        kinds: Attribute types that the write fixed.
        space: The semantic space after the write; None: unchanged and unknown.
        outcome: For the caller.
        followed: What the write changes in the indexes of other spaces.
    """

    change: IndexChange | None
    items: tuple[ItemChange, ...]
    kinds: dict[str, str]
    space: SpaceRow | None
    outcome: UpsertOutcome | DeleteOutcome
    followed: tuple[IndexChange, ...] = ()


@dataclass(frozen=True, slots=True)
class CatalogCreated:
    """A catalogue was made, at sequence `sequence`; None: it was there with the same settings."""

    row: CatalogRow
    sequence: int | None = None


@dataclass(frozen=True, slots=True)
class CatalogChanged:
    """A catalogue has other settings."""

    row: CatalogRow


@dataclass(frozen=True, slots=True)
class CatalogDropped:
    """A catalogue is gone; `successor` is the empty `default` that took its place."""

    catalog_id: int
    deleted_items: int
    successor: CatalogCreated | None


Committed = ItemsCommitted | CatalogCreated | CatalogChanged | CatalogDropped | SpacesChanged | VectorsPut | None


class NeedsEncoderError(Exception):
    """Passages that have no vector yet, or attributes to infer of them; ask the encoder and commit again.

    Attributes:
        passages: Without a vector.
        unread: To be classified, by name of the attribute.
    """

    def __init__(self, passages: Sequence[str], unread: Mapping[str, Sequence[str]]) -> None:
        self.passages, self.unread = tuple(passages), unread
        super().__init__(f"{len(passages)} passages need a vector, {len(unread)} attributes values")
