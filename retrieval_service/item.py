"""What can be recommended, as the service thinks of it. No proto, no SQL."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from service_runtime.attributes import AttributeScalar


@dataclass(frozen=True, slots=True)
class Item:
    """One item of a catalogue. Times are aware, in UTC.

    Attributes:
        id: The caller's id.
        title: What a person calls it.
        text: What it says or is about.
        categories: From general to special.
        attributes: Typed attributes by name.
        language: BCP 47 tag, empty when unknown.
        created_at: When it came into the world; None only before the first write.
        available_from: Hidden before; None: no limit.
        available_until: Hidden from then on; None: no limit.
        available: False hides it.
        prior: How good it is before anybody acted on it, in [0,1]; None: not said.
        revision: Grows with every write, never used twice for an id; 0 before the first.
        sequence: The catalogue's sequence number of its last write.
        updated_at: When it was last written.
        inferred: Names of the attributes that were inferred from its passage, sorted.
        inferred_version: Of what they were inferred by; empty: nothing was to be.
    """

    id: str
    title: str = ""
    text: str = ""
    categories: tuple[str, ...] = ()
    attributes: Mapping[str, AttributeScalar] = field(default_factory=dict)
    language: str = ""
    created_at: datetime | None = None
    available_from: datetime | None = None
    available_until: datetime | None = None
    available: bool | None = None
    prior: float | None = None
    revision: int = 0
    sequence: int = 0
    updated_at: datetime | None = None
    inferred: tuple[str, ...] = ()
    inferred_version: str = ""

    @property
    def passage(self) -> str:
        """What is encoded: title and text, each on its own line; once where they are the same."""
        return "\n".join(dict.fromkeys(part for part in (self.title.strip(), self.text.strip()) if part))


def passage_hash(passage: str) -> bytes:
    """Tells whether a passage has changed since it was encoded; 16 bytes."""
    return hashlib.blake2b(passage.encode(), digest_size=16).digest()


def attribute_kind(value: AttributeScalar) -> str:
    """The type of an attribute in a word that people read in an error."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, str):
        return "string"
    if isinstance(value, tuple):
        return "string list"
    if isinstance(value, datetime):
        return "time"
    return "number"
