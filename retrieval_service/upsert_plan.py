"""What a batch would do to the present state of the store: decided here, carried out by `item_writes`.

A plan reads and decides: which items are new, what a mask changes, whether revisions and types fit, which passages
need a vector. It runs once before encoding, so that a refused batch costs no encoder call, and again inside the writing
transaction, where its decisions count.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from retrieval_service import metrics
from retrieval_service.inference.inferred_attribute import (
    NO_INFERENCE,
    NOTHING_INFERRED,
    Inference,
    InferenceBook,
    Inferred,
)
from retrieval_service.item import Item, attribute_kind, passage_hash
from retrieval_service.item_store import CatalogRow, ItemRow, ItemStore
from retrieval_service.vector_rows import Connection
from retrieval_service.write_messages import EncodedPassage, ItemWrite, UpsertBatch, UpsertOutcome
from service_runtime.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidRequest,
    NotFound,
    RevisionConflict,
    Violation,
)


@dataclass(frozen=True, slots=True)
class PlannedItem:
    """One item of a batch: its row and content before (None: it is new) and its content after.

    `open_names` are attributes whose values its passage has to be asked for.
    """

    row: ItemRow | None
    old: Item | None
    new: Item
    passage: str
    hash: bytes
    open_names: tuple[str, ...] = ()

    @property
    def needs_vector(self) -> bool:
        """Whether its words are not those its vector was made of."""
        return self.row is None or self.row.passage_hash != self.hash


@dataclass(frozen=True, slots=True)
class UpsertPlan:
    """What a batch would do to the present state of the store.

    Attributes:
        entries: One an item.
        kinds: Attribute types it would fix.
        inference: What is inferred in the catalogue.
        replay: The outcome of the same request before; None: there was none.
    """

    entries: tuple[PlannedItem, ...]
    kinds: dict[str, str] = field(default_factory=dict)
    inference: Inference = NOTHING_INFERRED
    replay: UpsertOutcome | None = None

    def missing(self, encoded: Mapping[bytes, EncodedPassage]) -> list[str]:
        """Passages without a vector."""
        return list({e.hash: e.passage for e in self.entries if e.needs_vector and e.hash not in encoded}.values())

    def unread(self, known: Inferred) -> dict[str, list[str]]:
        """Passages to be classified, by name of the attribute."""
        found: dict[str, dict[bytes, str]] = {}
        for entry in self.entries:
            for name in entry.open_names:
                if (name, entry.hash) not in known:
                    found.setdefault(name, {})[entry.hash] = entry.passage
        return {name: list(passages.values()) for name, passages in found.items()}

    def expected(self) -> UpsertOutcome:
        """The outcome for a caller who only asks; sequence 0."""
        results = (ItemWrite(e.new.id, e.new.revision, e.row is None, False) for e in self.entries)
        return UpsertOutcome(0, tuple(results))


class UpsertPlanner:
    """Plans batches.

    Args:
        store: The truth.
        read_item: Payload to item.
        max_items: Items any catalogue may have, whatever its own limit; 0: no limit.
        inferences: What is inferred from items.
    """

    def __init__(
        self,
        store: ItemStore,
        read_item: Callable[[bytes], Item],
        max_items: int = 0,
        inferences: InferenceBook = NO_INFERENCE,
    ) -> None:
        self._store, self._read_item, self._max_items = store, read_item, max_items
        self.inferences = inferences

    def plan(self, connection: Connection, catalog: CatalogRow, batch: UpsertBatch, now: datetime) -> UpsertPlan:
        """Decides what a batch does.

        Raises:
            AlreadyExists: The request id was used for another request.
            NotFound: A mask is given and an item does not exist.
            RevisionConflict: A revision is not the stored one.
            InvalidRequest: An attribute has another type than before, or a mask leaves nothing to encode.
            FailedPrecondition: The catalogue is full.
        """
        catalog_id = catalog.catalog_id
        replay = remembered(self._store, connection, catalog_id, batch.request_id, batch.request_hash)
        if replay is not None:
            results = tuple(ItemWrite(*result) for result in replay["results"])
            return UpsertPlan((), replay=UpsertOutcome(replay["sequence"], results))
        rows = self._store.items(connection, catalog_id, [item.id for item in batch.items])
        if batch.check_revision:
            _check_revisions(batch.items, rows)
        if batch.mask is not None:
            for item in batch.items:
                if item.id not in rows:
                    raise NotFound(
                        "item", item.id, f"item {item.id!r} does not exist; leave update_mask out to make it"
                    )
        limit = min((given for given in (self._max_items, catalog.max_items) if given), default=0)
        if limit:
            count = self._store.item_count(connection, catalog_id) + len(batch.items) - len(rows)
            if count > limit and len(rows) < len(batch.items):
                raise FailedPrecondition(
                    f"catalogue {batch.catalog!r} would have {count} items; {limit} are allowed",
                    reason="CATALOG_FULL",
                )
        # A new item starts with the number of the write, not with 1: it may have been here before and been deleted.
        first = self._store.sequence(connection, catalog_id) + 1
        inference = self.inferences.of(batch.catalog)
        entries = tuple(
            self._plan_one(item, rows.get(item.id), batch.mask, now, first, inference) for item in batch.items
        )
        violations = [
            Violation(f"items[{i}]", "would have neither title nor text; there is nothing to encode")
            for i, entry in enumerate(entries)
            if not entry.passage
        ]
        kinds = self._store.attribute_kinds(connection, catalog_id)
        new_kinds = _fix_kinds(entries, kinds, violations)
        if violations:
            raise InvalidRequest(violations)
        if inference.attributes:
            entries, new_kinds = _fix_inferred_kinds(entries, {**kinds, **new_kinds}, new_kinds, inference)
        return UpsertPlan(entries, new_kinds, inference)

    def _plan_one(
        self,
        item: Item,
        row: ItemRow | None,
        mask: frozenset[str] | None,
        now: datetime,
        first_revision: int,
        inference: Inference,
    ) -> PlannedItem:
        old = self._read_item(row.payload) if row is not None else None
        new = item
        if mask is not None and old is not None:
            new = dataclasses.replace(old, **{name: getattr(item, name) for name in mask})
            if "attributes" in mask:
                new = dataclasses.replace(new, inferred=item.inferred)
        if new.created_at is None:
            new = dataclasses.replace(new, created_at=old.created_at if old is not None else now)
        new = dataclasses.replace(new, revision=row.revision + 1 if row is not None else first_revision, updated_at=now)
        new, open_names = inference.settle(old, new, mask)
        passage = new.passage
        return PlannedItem(row, old, new, passage, passage_hash(passage), open_names)


def remembered(
    store: ItemStore, connection: Connection, catalog_id: int, request_id: str, request_hash: bytes
) -> dict[str, Any] | None:
    """The outcome of the same request before, as it was stored; None: there was none.

    Raises:
        AlreadyExists: The request id was used for another request.
    """
    if not request_id:
        return None
    found = store.remembered_request(connection, catalog_id, request_id)
    if found is None:
        return None
    stored_hash, response = found
    if stored_hash != request_hash:
        raise AlreadyExists("request", request_id, f"request id {request_id!r} was used for another request")
    outcome: dict[str, Any] = json.loads(response)
    return outcome


def _check_revisions(items: Sequence[Item], rows: Mapping[str, ItemRow]) -> None:
    for item in items:
        row = rows.get(item.id)
        stored = row.revision if row is not None else 0
        if item.revision != stored:
            raise RevisionConflict(
                f"item {item.id!r} has revision {stored}, the request expects {item.revision}; read it again"
            )


def _fix_kinds(entries: Sequence[PlannedItem], kinds: Mapping[str, str], violations: list[Violation]) -> dict[str, str]:
    """The types that this batch fixes; notes values of another type than their name has."""
    fixed: dict[str, str] = {}
    for i, entry in enumerate(entries):
        for name, value in entry.new.attributes.items():
            kind = attribute_kind(value)
            known = kinds.get(name) or fixed.setdefault(name, kind)
            if known != kind:
                violations.append(
                    Violation(f"items[{i}].attributes[{name}]", f"is a {kind}; {name} is a {known} in this catalogue")
                )
    return fixed


def _fix_inferred_kinds(
    entries: tuple[PlannedItem, ...], kinds: Mapping[str, str], fixed: dict[str, str], inference: Inference
) -> tuple[tuple[PlannedItem, ...], dict[str, str]]:
    """The entries without attributes that callers use for values of another type, which come first, and the types."""
    fits = {name for name, each in inference.attributes.items() if kinds.get(name, each.kind) == each.kind}
    wanted = {name for entry in entries for name in entry.open_names}
    if not wanted <= fits:
        for name in wanted - fits:
            metrics.NOT_INFERRED.labels(name).inc()
        entries = tuple(
            dataclasses.replace(entry, open_names=tuple(name for name in entry.open_names if name in fits))
            for entry in entries
        )
    inferred = {name: inference.attributes[name].kind for name in wanted & fits if name not in kinds}
    return entries, {**fixed, **inferred}
