"""Which attributes and circumstances a learned ranker reads, and how: learned once from training rows, then fixed.

Kept in the bundle as JSON, so that a list reads exactly what the training read: the same columns in the same order,
the same scaling, the same stand-ins for what is missing.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any, Literal

import numpy as np

from service_runtime.attributes import AttributeScalar

CATEGORIES = "categories"
ATTRIBUTES = "attributes."
"""Fields of items are called `categories` and, as in filters, `attributes.NAME`."""
OF_USER = "user.attributes."
CIRCUMSTANCES = ("context.device", "context.place", "context.language", "context.daypart")
"""What a request can say of its circumstances in words; a daypart is four hours of UTC."""
OF_MOMENT = ("context.hour", "context.weekday", "context.language_match")

# Beyond so many standard deviations a number says no more; half precision has to hold it.
_FARTHEST = 8.0


@dataclass(frozen=True)
class WordField:
    """A field of items that holds words.

    Attributes:
        name: `categories` or `attributes.NAME`.
        width: Words of an item that count, the first so many.
        events: How many positive training events there were on items with a word, for the words that had most; others
            count as never seen.
    """

    name: str
    width: int
    events: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class NumberField:
    """An attribute of items that holds a number, a moment (Unix days) or a truth (0 or 1).

    Attributes:
        name: `attributes.NAME`.
        mean: Over the training's items, after the logarithm where there is one.
        scale: Standard deviation likewise, above 0.
        fill: Stands for a missing value: the median, scaled.
        log: Whether the logarithm of 1 + value is what counts: prices, counts.
    """

    name: str
    mean: float
    scale: float
    fill: float = 0.0
    log: bool = False

    def scaled(self, value: float | None) -> float:
        """The value in standard deviations from the mean; NaN for none, and for one that has no logarithm."""
        if value is None or (self.log and value < 0):
            return float("nan")
        number = float(np.log1p(value)) if self.log else value
        return min(max((number - self.mean) / self.scale, -_FARTHEST), _FARTHEST)


@dataclass(frozen=True)
class Side:
    """Something known of whoever asks: an attribute of the user, or a circumstance of the request.

    Attributes:
        name: `user.attributes.NAME`, or one of `CIRCUMSTANCES`.
        kind: `words`: a string, a truth, or several strings; `number`: a number or a moment (Unix days).
        values: Words by falling frequency in training; the place of one is its column's value.
        mean: Of numbers.
        scale: Of numbers, above 0.
        edges: Of numbers: where one of four equally frequent ranges ends and the next begins.
    """

    name: str
    kind: Literal["words", "number"]
    values: tuple[str, ...] = ()
    mean: float = 0.0
    scale: float = 1.0
    edges: tuple[float, ...] = ()

    def words(self, value: AttributeScalar | None) -> tuple[str, ...]:
        """What a lift knows the value by; nothing for a missing one."""
        if value is None:
            return ()
        if self.kind == "words":
            return words_of(value)
        number = number_of(value)
        return () if number is None else (f"range {int(np.searchsorted(self.edges, number, side='right'))}",)

    def value(self, value: AttributeScalar | None) -> float:
        """What the column says: the scaled number, or the place of the word; NaN for what training did not know."""
        if self.kind == "number":
            return NumberField(self.name, self.mean, self.scale).scaled(number_of(value))
        places = [self.values.index(word) for word in self.words(value) if word in self.values]
        return float(min(places)) if places else float("nan")


@dataclass(frozen=True)
class Lift:
    """How much more often than others those with some value chose items with some word, learned from training rows.

    Attributes:
        side: Name of the `Side`.
        field: Name of the `WordField`.
        table: By value of the side, by word of the field: log((n + a) / (e + a)), where n events on items with the
            word came from those with the value, e would have if they were like everybody, and a holds back what few
            events say. Words near 0 are left out.
    """

    side: str
    field: str
    table: Mapping[str, Mapping[str, float]]

    @property
    def name(self) -> str:
        """Of its column."""
        return f"{self.side}.lift.{self.field}"


@dataclass(frozen=True)
class FeatureSpec:
    """All of it. Nothing in it is of a single user or event.

    Attributes:
        words: Of items.
        numbers: Of items.
        sides: Of whoever asks.
        lifts: Between the two.
        kept: Names of the columns that are read, in the order of `all_names`; the others said the same of every
            training row. None: all.
    """

    words: tuple[WordField, ...] = ()
    numbers: tuple[NumberField, ...] = ()
    sides: tuple[Side, ...] = ()
    lifts: tuple[Lift, ...] = ()
    kept: tuple[str, ...] | None = None

    @property
    def all_names(self) -> tuple[str, ...]:
        """Every column there could be."""
        return (
            *(f"{entry.name}.{part}" for part in ("share", "latest", "events") for entry in self.words),
            *(f"{entry.name}.{part}" for part in ("value", "given", "distance") for entry in self.numbers),
            *(side.name for side in self.sides),
            *(lift.name for lift in self.lifts),
            *OF_MOMENT,
        )

    @property
    def names(self) -> tuple[str, ...]:
        """The columns that are read."""
        return self.all_names if self.kept is None else self.kept

    @property
    def item_attributes(self) -> tuple[str, ...]:
        """Names of the attributes of items that have to be at hand."""
        fields = [entry.name for entry in self.words] + [number.name for number in self.numbers]
        return tuple(name.removeprefix(ATTRIBUTES) for name in fields if name != CATEGORIES)

    def keeping(self, names: Collection[str]) -> FeatureSpec:
        """The spec with only these columns, without everything that none of them needs."""
        kept = tuple(name for name in self.all_names if name in names)

        def read(name: str) -> bool:
            return any(column.startswith(f"{name}.") or column.endswith(f".lift.{name}") for column in kept)

        lifts = tuple(lift for lift in self.lifts if lift.name in kept)
        return FeatureSpec(
            tuple(entry for entry in self.words if read(entry.name)),
            tuple(entry for entry in self.numbers if read(entry.name)),
            tuple(side for side in self.sides if side.name in kept or any(lift.side == side.name for lift in lifts)),
            lifts,
            kept,
        )

    def to_json(self) -> bytes:
        """As a bundle keeps it."""
        return json.dumps(asdict(self), ensure_ascii=False).encode()

    @staticmethod
    def from_json(content: bytes) -> FeatureSpec:
        """What `to_json` wrote.

        Raises:
            ValueError: It is something else.
        """
        try:
            told: dict[str, Any] = json.loads(content)
            sides = [{**side, "values": tuple(side["values"]), "edges": tuple(side["edges"])} for side in told["sides"]]
            return FeatureSpec(
                tuple(WordField(**entry) for entry in told["words"]),
                tuple(NumberField(**entry) for entry in told["numbers"]),
                tuple(Side(**side) for side in sides),
                tuple(Lift(**lift) for lift in told["lifts"]),
                None if told["kept"] is None else tuple(told["kept"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no feature spec: {error}") from None

    @property
    def key(self) -> str:
        """Tells specs apart."""
        return hashlib.blake2b(self.to_json(), digest_size=12).hexdigest()


def words_of(value: AttributeScalar | None) -> tuple[str, ...]:
    """An attribute as words; nothing where it is a number or a moment."""
    if isinstance(value, bool):
        return ("true" if value else "false",)
    if isinstance(value, str):
        return (value,) if value else ()
    return value if isinstance(value, tuple) else ()


def number_of(value: AttributeScalar | None) -> float | None:
    """An attribute as a number; None where it is words."""
    if isinstance(value, datetime):
        return value.timestamp() / 86_400.0
    return float(value) if isinstance(value, int | float) else None
