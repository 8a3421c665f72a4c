"""Which attributes are inferred, and what the probabilities of their labels come to."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field

from retrieval_service.item import Item, attribute_kind
from service_runtime.attributes import MAX_ATTRIBUTES, AttributeScalar
from service_runtime.label_sets import LabelSet


@dataclass(frozen=True, slots=True)
class InferredAttribute:
    """An attribute whose value is a label.

    Attributes:
        name: Of the attribute.
        labels: What it can be.
        several: Whether an item has every label that reaches its threshold, as a list; else only the best.
        rest: Labels that stand for texts the others are not about, and are no value.
    """

    name: str
    labels: LabelSet
    several: bool = False
    rest: frozenset[str] = frozenset()

    @property
    def kind(self) -> str:
        """The type of its values, as `item.attribute_kind` words it."""
        return attribute_kind(() if self.several else "")

    def value(self, probabilities: Mapping[str, float]) -> str | tuple[str, ...] | None:
        """The value; None: no label reaches its threshold."""
        reached = [label for label, _ in self.labels.reached(probabilities)]
        values = tuple(label for label in (reached if self.several else reached[:1]) if label not in self.rest)
        if not values:
            return None
        return values if self.several else values[0]


Inferred = Mapping[tuple[str, bytes], str | tuple[str, ...] | None]
"""Values by name of the attribute and hash of the passage; None: no label fits that passage."""


@dataclass(frozen=True, slots=True)
class Inference:
    """What is inferred in one catalogue.

    Attributes:
        attributes: By name.
        version: Changes with anything that can change a value.
    """

    attributes: Mapping[str, InferredAttribute] = field(default_factory=dict)
    version: str = field(init=False)

    def __post_init__(self) -> None:
        parts = sorted(
            f"{each.name} {each.several} {sorted(each.rest)} {each.labels.version}" for each in self.attributes.values()
        )
        version = hashlib.blake2b("\n".join(parts).encode(), digest_size=8).hexdigest() if parts else ""
        object.__setattr__(self, "version", version)

    def settle(self, old: Item | None, new: Item, mask: frozenset[str] | None) -> tuple[Item, tuple[str, ...]]:
        """An item with what needs no encoder: what the caller gave, and what was inferred before and still holds.

        An attribute that `new.inferred` names is none of the caller's: whoever reads an item and writes it back does
        not make what was inferred their own.

        Args:
            old: As stored; None: it is new.
            new: As it shall be stored, an update mask applied.
            mask: The fields that the caller changes; None: all.

        Returns:
            The item, and the names of the attributes that its text has to be asked for.
        """
        if mask is not None and not mask & {"title", "text", "attributes"}:
            return new, ()
        marked = {name for name in new.inferred if name in new.attributes}
        attributes = {name: v for name, v in new.attributes.items() if not (name in marked and name in self.attributes)}
        inferred = {name for name in marked if name not in self.attributes}
        if mask is not None and "attributes" not in mask and old is not None and old.passage != new.passage:
            # Nobody infers these any more, and they are of another text.
            attributes = {name: value for name, value in attributes.items() if name not in inferred}
            inferred = set()
        holds = old is not None and old.passage == new.passage and old.inferred_version == self.version
        open_names = []
        for name in self.attributes:
            if name in attributes:
                continue
            if old is None or not holds or (name in old.attributes and name not in old.inferred):
                open_names.append(name)
            elif name in old.attributes:
                attributes[name] = old.attributes[name]
                inferred.add(name)
        return _with(new, attributes, inferred, self.version), tuple(open_names)

    def complete(self, item: Item, open_names: tuple[str, ...], passage: bytes, known: Inferred) -> Item:
        """The item with what its text says.

        Args:
            item: As `settle` left it.
            open_names: Likewise.
            passage: The hash of its passage.
            known: Holds a value for each of them.
        """
        attributes, inferred = dict(item.attributes), set(item.inferred)
        for name in open_names:
            value = known[name, passage]
            # More than a caller may give would make an item that cannot be written back.
            if value is not None and len(attributes) < MAX_ATTRIBUTES:
                attributes[name] = value
                inferred.add(name)
        return _with(item, attributes, inferred, self.version)


def _with(item: Item, attributes: Mapping[str, AttributeScalar], inferred: set[str], version: str) -> Item:
    return dataclasses.replace(item, attributes=attributes, inferred=tuple(sorted(inferred)), inferred_version=version)


NOTHING_INFERRED = Inference()


@dataclass(frozen=True, slots=True)
class InferenceBook:
    """What is inferred in all catalogues.

    Attributes:
        everywhere: In catalogues that have nothing of their own.
        own: By catalogue.
    """

    everywhere: Inference = NOTHING_INFERRED
    own: Mapping[str, Inference] = field(default_factory=dict)

    def of(self, catalog: str) -> Inference:
        """What is inferred in a catalogue."""
        return self.own.get(catalog, self.everywhere)


NO_INFERENCE = InferenceBook()
