"""Random and mutated messages of any type, by descriptor: mostly near what is valid, now and then far from it."""

from __future__ import annotations

import random
import string
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

WORDS = (
    "default",
    "fuzz",
    "item-1",
    "item-2",
    "user-1",
    "semantic",
    "title",
    "attributes.year",
    "喜欢看电影",
    "a film",
)
ODD_TEXTS = (
    *(
        "",
        " ",
        "\x00",
        "\u0001x",
        "\u202e",
        "\ufeff",
        "🎬" * 50,
        "é" * 300,
        "x" * 100_000,
        "../../etc/passwd",
        "'; DROP TABLE",
    ),
    *("%s%n", "null", "NaN", "-1", "\r\n", "A" * 257, "ß" * 129),
)
ODD_FLOATS = (0.0, -0.0, 0.5, 1.0, -1.0, 1e-300, 1e300, -1e308, float("nan"), float("inf"), float("-inf"))
ODD_INTS = (0, 1, 2, 7, 100, 1000, 10_000, 2**31 - 1, 2**31, 2**32 - 1, 2**53, 2**63 - 1)
ODD_SECONDS = (
    0,
    1,
    -1,
    1_790_000_000,
    -62_135_596_800,
    -62_135_596_801,
    253_402_300_799,
    253_402_300_800,
    2**62,
    -(2**62),
)
MAX_DEPTH = 6


class RandomMessages:
    """Fills and mutates messages; the same seed gives the same messages."""

    def __init__(self, seed: int) -> None:
        self._draw = random.Random(seed)

    def fill(self, message: Message, depth: int = 0) -> Message:
        """Sets some fields of a message to values of their types."""
        for field in message.DESCRIPTOR.fields:
            if self._draw.random() < (0.75 if depth == 0 else 0.4):
                self._set(message, field, depth)
        return message

    def mutate(self, message: Message) -> Message:
        """Changes a few fields of a copy of a message, anywhere in it."""
        changed = type(message)()
        changed.CopyFrom(message)
        for _ in range(self._draw.randint(1, 3)):
            target, field = self._pick(changed)
            if self._draw.random() < 0.2:
                target.ClearField(field.name)
            else:
                self._set(target, field, depth=2)
        return changed

    def _pick(self, message: Message) -> tuple[Message, FieldDescriptor]:
        inside = [message]
        for _ in range(MAX_DEPTH):
            for field, value in inside[-1].ListFields():
                if field.message_type is None or field.message_type.GetOptions().map_entry:
                    continue
                children = list(value) if field.is_repeated else [value]
                if children and self._draw.random() < 0.6:
                    inside.append(self._draw.choice(children))
                    break
            else:
                break
        target = self._draw.choice(inside)
        return target, self._draw.choice(target.DESCRIPTOR.fields)

    def _set(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            self._set_map(message, field, depth)
        elif field.is_repeated:
            values = getattr(message, field.name)
            for _ in range(self._draw.choice((0, 1, 1, 2, 3, 5))):
                if field.message_type is not None:
                    if depth < MAX_DEPTH:
                        self.fill(values.add(), depth + 1)
                else:
                    values.append(self._scalar(field))
        elif field.message_type is not None:
            if depth < MAX_DEPTH:
                child = getattr(message, field.name)
                child.SetInParent()
                self.fill(child, depth + 1)
        else:
            setattr(message, field.name, self._scalar(field))

    def _set_map(self, message: Message, field: FieldDescriptor, depth: int) -> None:
        entries = getattr(message, field.name)
        kind = field.message_type.fields_by_name["value"]
        for _ in range(self._draw.choice((0, 1, 2))):
            key = self._draw.choice(("year", "brand", "tags", "Bad Key", "", "x" * 100))
            if kind.message_type is not None:
                self.fill(entries[key], depth + 1)
            else:
                entries[key] = self._scalar(kind)

    def _scalar(self, field: FieldDescriptor) -> Any:
        draw = self._draw
        if field.type == FieldDescriptor.TYPE_STRING:
            ordinary = draw.random() < 0.7
            return (
                draw.choice(WORDS)
                if ordinary
                else draw.choice((*ODD_TEXTS, "".join(draw.choices(string.printable, k=20))))
            )
        if field.type == FieldDescriptor.TYPE_BYTES:
            return draw.randbytes(draw.choice((0, 1, 3, 4, 768, 1536, 5000)))
        if field.type == FieldDescriptor.TYPE_BOOL:
            return draw.random() < 0.5
        if field.type == FieldDescriptor.TYPE_ENUM:
            known = [value.number for value in field.enum_type.values]
            return draw.choice([*known, 99, 2**31 - 1])
        if field.type in (FieldDescriptor.TYPE_DOUBLE, FieldDescriptor.TYPE_FLOAT):
            return (
                draw.choice((draw.random(), *ODD_FLOATS))
                if field.type == FieldDescriptor.TYPE_DOUBLE
                else draw.random()
            )
        if field.name == "seconds":
            return draw.choice(ODD_SECONDS)
        low, high = _RANGES[field.type]
        return min(max(draw.choice((draw.randint(0, 20), *ODD_INTS, -1)), low), high)


_RANGES = {
    FieldDescriptor.TYPE_INT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_SINT32: (-(2**31), 2**31 - 1),
    FieldDescriptor.TYPE_UINT32: (0, 2**32 - 1),
    FieldDescriptor.TYPE_INT64: (-(2**63), 2**63 - 1),
    FieldDescriptor.TYPE_UINT64: (0, 2**64 - 1),
}
