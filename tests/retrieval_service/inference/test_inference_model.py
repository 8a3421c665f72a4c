"""However items are written, an attribute is what the caller gave, else what the present words say."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from retrieval_service import conversions
from retrieval_service.inference.inferred_attribute import Inference, InferenceBook, InferredAttribute
from retrieval_service.item import Item, passage_hash
from retrieval_service.item_store import ItemStore
from retrieval_service.item_writes import ItemWrites
from retrieval_service.write_messages import EncodedPassage, NeedsEncoderError, UpsertBatch
from service_runtime.attributes import AttributeScalar
from service_runtime.label_sets import Label, LabelSet
from service_runtime.sql import sqlite_url
from zhiyin_offline.upkeep.findings import Report
from zhiyin_offline.upkeep.item_store_check import check_items

LABELS = LabelSet(tuple(Label(name, (name,), (), 0.5) for name in ("funny", "dark")))
INFERENCE = Inference({name: InferredAttribute(name, LABELS) for name in ("mood", "tone")})


def says(name: str, text: str) -> str | None:
    """What the words say of an attribute: the label they end with."""
    return {"f": "funny", "d": "dark"}.get(text[-1:]) if name == "mood" or text.startswith("t") else None


def write(old: Item | None, new: Item, mask: frozenset[str] | None) -> tuple[Item, tuple[str, ...]]:
    if mask is not None and old is not None:
        marks = new.inferred if "attributes" in mask else old.inferred
        new = dataclasses.replace(old, **{name: getattr(new, name) for name in mask}, inferred=marks)
    settled, open_names = INFERENCE.settle(old, new, mask)
    hashed = passage_hash(settled.passage)
    known = {(name, hashed): says(name, settled.passage) for name in open_names}
    return INFERENCE.complete(settled, open_names, hashed, known) if open_names else settled, open_names


given_attributes = st.dictionaries(st.sampled_from(["mood", "tone", "own"]), st.sampled_from(["x", "y"]), max_size=3)
masks = st.none() | st.sets(st.sampled_from(["title", "attributes", "categories"]), min_size=1).map(frozenset)
writes = st.lists(
    st.tuples(st.sampled_from(["af", "ad", "b", "tf", "td"]), given_attributes, masks, st.booleans()), min_size=1
)


@given(writes)
def test_attributes_are_the_callers_else_what_the_words_say(
    steps: list[tuple[str, dict[str, str], frozenset[str] | None, bool]],
) -> None:
    stored: Item | None = None
    callers: Mapping[str, AttributeScalar] = {}
    for title, given_now, mask, echoed in steps:
        before, mask = stored, mask if stored is not None else None
        if echoed and stored is not None:  # read and written back with other words
            new = dataclasses.replace(stored, title=title, inferred_version="")
        else:
            new = Item("a", title, attributes=given_now)
            callers = given_now if mask is None or "attributes" in mask else callers
        stored, open_names = write(before, new, mask)
        wanted = dict(callers)
        for name in INFERENCE.attributes:
            said = says(name, stored.passage)
            if name not in callers and said is not None:
                wanted[name] = said
        assert stored.attributes == wanted
        assert stored.inferred == tuple(sorted(set(wanted) - set(callers)))
        # Nothing is asked that is known.
        if before is not None and before.passage == stored.passage:
            given_up = [name for name in open_names if name in before.attributes and name not in before.inferred]
            assert list(open_names) == given_up


def test_a_write_that_comes_in_between_has_its_words_read(tmp_path: Path) -> None:
    store = ItemStore(sqlite_url(tmp_path / "items.sqlite3"))
    store.create_tables()
    with store.engine.begin() as connection:
        row = store.create_catalog(connection, "default", "")
    writes = ItemWrites(
        store,
        conversions.item_from_payload,
        conversions.item_to_payload,
        inferences=InferenceBook(INFERENCE),
    )
    hashed = passage_hash("af")
    encoded = {hashed: EncodedPassage(np.ones(2, np.float32) / np.sqrt(2).astype(np.float32), False, "space")}
    batch = UpsertBatch("default", (Item("a", "af"),))
    now = datetime.now(UTC)
    with store.engine.begin() as connection, pytest.raises(NeedsEncoderError) as needed:
        # Planned as one that needs no label; by now it does.
        writes.commit_upsert(connection, row, batch, encoded, now, {("tone", hashed): None})
    assert needed.value.unread == {"mood": ["af"]}
    assert needed.value.passages == ()
    with store.engine.begin() as connection:
        known = {("tone", hashed): None, ("mood", hashed): "funny"}
        done = writes.commit_upsert(connection, row, batch, encoded, now, known)
    assert done.items[0].new is not None
    assert done.items[0].new.attributes == {"mood": "funny"}
    assert done.kinds == {"mood": "string", "tone": "string"}
    report = Report()
    with store.reading() as connection:
        check_items(store, connection, row, report)
    store.close()
    assert report.healthy, report.findings
