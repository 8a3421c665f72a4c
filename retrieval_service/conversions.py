"""Between the contract's messages and the domain, both ways. Reading collects every violation of a request."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, Literal

import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask
from numpy.typing import NDArray

from retrieval_service import filters
from retrieval_service.item import Item
from retrieval_service.item_cache import Hidden
from service_runtime import attributes
from service_runtime.timestamps import set_moment, to_moment
from service_runtime.validation import Violations
from zhiyin.common.v1 import embedding_pb2, filter_pb2, item_pb2

MAX_TITLE_BYTES, MAX_TEXT_BYTES = 2048, 32 << 10
MAX_CATEGORIES, MAX_CATEGORY_BYTES, MAX_LANGUAGE_BYTES = 32, 256, 64

_MAX_PATHS = 64
_ATTRIBUTES = "attributes."
_ITEM_FIELDS = frozenset(item_pb2.Item.DESCRIPTOR.fields_by_name)
_OUTPUT_ONLY = frozenset({"id", "revision", "sequence", "updated_at", "inferred", "inferred_version"})
_TimeField = Literal["created_at", "available_from", "available_until", "updated_at"]
_TIMES: tuple[_TimeField, ...] = ("created_at", "available_from", "available_until")
_ALL_TIMES: tuple[_TimeField, ...] = (*_TIMES, "updated_at")


# ---- items


def check_item(violations: Violations, path: str, message: item_pb2.Item, *, whole: bool) -> None:
    """Notes everything wrong with an item.

    Args:
        violations: Where to note it.
        path: Of the item in the request.
        message: The item.
        whole: False when an update mask says that only some fields count: title and text may then be empty.
    """
    violations.check_id(f"{path}.id", message.id)
    violations.check_text(f"{path}.title", message.title, MAX_TITLE_BYTES)
    violations.check_text(f"{path}.text", message.text, MAX_TEXT_BYTES)
    if whole and not message.title.strip() and not message.text.strip():
        violations.add(path, "has neither title nor text; there is nothing to encode")
    violations.check_count(f"{path}.categories", len(message.categories), 0, MAX_CATEGORIES)
    for i, category in enumerate(message.categories[:MAX_CATEGORIES]):
        if not category:
            violations.add(f"{path}.categories[{i}]", "is empty; leave it out")
        violations.check_text(f"{path}.categories[{i}]", category, MAX_CATEGORY_BYTES)
    violations.check_text(f"{path}.language", message.language, MAX_LANGUAGE_BYTES)
    attributes.check(violations, f"{path}.attributes", message.attributes)
    for name in _TIMES:
        if message.HasField(name):
            violations.check_timestamp(f"{path}.{name}", getattr(message, name))
    if message.HasField("prior"):
        violations.check_range(f"{path}.prior", message.prior, 0.0, 1.0)


def item_from_proto(message: item_pb2.Item) -> Item:
    """A checked item. What is output only is ignored, whatever it holds, but for marks of given attributes."""
    item = _item(message, _TIMES)
    marked = tuple(sorted({name for name in message.inferred if name in message.attributes}))
    return dataclasses.replace(item, inferred=marked, inferred_version="")


def _item(message: item_pb2.Item, time_fields: Sequence[_TimeField]) -> Item:
    times = {name: to_moment(getattr(message, name)) for name in time_fields if message.HasField(name)}
    return Item(
        id=message.id,
        title=message.title,
        text=message.text,
        categories=tuple(dict.fromkeys(message.categories)),
        attributes=attributes.from_proto(message.attributes),
        language=message.language,
        available=message.available if message.HasField("available") else None,
        prior=message.prior if message.HasField("prior") else None,
        revision=message.revision,
        sequence=message.sequence,
        inferred=tuple(message.inferred),
        inferred_version=message.inferred_version,
        **times,
    )


def item_to_payload(item: Item) -> bytes:
    """An item as the store keeps it: the contract's own message."""
    message = item_pb2.Item(
        id=item.id,
        title=item.title,
        text=item.text,
        categories=item.categories,
        language=item.language,
        available=item.available,
        prior=item.prior,
        revision=item.revision,
        sequence=item.sequence,
        inferred=item.inferred,
        inferred_version=item.inferred_version,
    )
    attributes.to_proto(item.attributes, message.attributes)
    for name in _ALL_TIMES:
        moment = getattr(item, name)
        if moment is not None:
            set_moment(getattr(message, name), moment)
    return message.SerializeToString(deterministic=True)


def item_from_payload(payload: bytes) -> Item:
    """What `item_to_payload` wrote."""
    return _item(item_pb2.Item.FromString(payload), _ALL_TIMES)


def check_read_mask(violations: Violations, field: str, mask: FieldMask) -> None:
    """A read mask names fields of Item."""
    violations.check_count(f"{field}.paths", len(mask.paths), 0, _MAX_PATHS)
    for i, path in enumerate(mask.paths[:_MAX_PATHS]):
        single = path.startswith(_ATTRIBUTES) and attributes.is_name(path.removeprefix(_ATTRIBUTES))
        if path not in _ITEM_FIELDS and not single:
            violations.add(f"{field}.paths[{i}]", f"{path!r} is no field of Item")


def check_update_mask(violations: Violations, mask: FieldMask) -> None:
    """An update mask names fields of Item that a caller may write."""
    if not mask.paths:
        violations.add("update_mask.paths", "is empty; name the fields to change, or leave the mask out")
    violations.check_count("update_mask.paths", len(mask.paths), 0, _MAX_PATHS)
    for i, path in enumerate(mask.paths[:_MAX_PATHS]):
        if path in _OUTPUT_ONLY or path not in _ITEM_FIELDS:
            violations.add(f"update_mask.paths[{i}]", f"{path!r} is no field that can be changed")


def hidden_fields(paths: Iterable[str]) -> Hidden:
    """What a read mask leaves out."""
    named = set(paths)
    single = {path for path in named if path.startswith(_ATTRIBUTES)} if "attributes" not in named else set()
    return tuple(sorted(_ITEM_FIELDS - named - ({"attributes"} if single else set()) | single))


def fill_item(target: item_pb2.Item, payload: bytes, hidden: Hidden) -> None:
    """A stored item, without the fields that the read mask leaves out."""
    target.ParseFromString(payload)
    shown = {name.removeprefix(_ATTRIBUTES) for name in hidden if name.startswith(_ATTRIBUTES)}
    if shown:
        for name in target.attributes.keys() - shown:
            del target.attributes[name]
    for name in hidden:
        if not name.startswith(_ATTRIBUTES):
            target.ClearField(name)  # type: ignore[arg-type]  # names come from the descriptor


# ---- filters


def filter_from_proto(violations: Violations, path: str, message: filter_pb2.Filter) -> filters.Filter:
    """A filter, with everything wrong noted. What is returned counts only when nothing was."""
    reader = _FilterReader(violations)
    condition = reader.read(path, message, depth=1)
    if reader.conditions > filters.MAX_CONDITIONS:
        violations.add(path, f"has more than {filters.MAX_CONDITIONS} conditions, which is the limit")
    return condition


class _FilterReader:
    def __init__(self, violations: Violations) -> None:
        self._violations = violations
        self.conditions = 0

    def read(self, path: str, message: filter_pb2.Filter, depth: int) -> filters.Filter:
        kind = message.WhichOneof("condition")
        self.conditions += 1  # empty ones too: each costs something
        if kind is None or self.conditions > filters.MAX_CONDITIONS:
            return filters.EVERYTHING
        if depth > filters.MAX_DEPTH:
            self._violations.add(path, f"is nested deeper than {filters.MAX_DEPTH} levels")
            return filters.EVERYTHING
        if kind == "all_of":
            return filters.AllOf(self._parts(f"{path}.all_of", message.all_of, depth))
        if kind == "any_of":
            return filters.AnyOf(self._parts(f"{path}.any_of", message.any_of, depth))
        if kind == "negated":
            return filters.Not(self.read(f"{path}.negated", message.negated, depth + 1))
        path = f"{path}.{kind}"
        if kind == "field_in":
            return self._field_in(path, message.field_in)
        if kind == "number_range":
            return self._number_range(path, message.number_range)
        if kind == "time_range":
            return self._time_range(path, message.time_range)
        self._check_field(path, message.field_exists.field)
        return filters.FieldExists(path, message.field_exists.field)

    def _parts(self, path: str, parts: filter_pb2.FilterList, depth: int) -> tuple[filters.Filter, ...]:
        # One more than allowed is enough to refuse the rest unread.
        read = enumerate(parts.filters[: filters.MAX_CONDITIONS + 1])
        return tuple(self.read(f"{path}.filters[{i}]", part, depth + 1) for i, part in read)

    def _field_in(self, path: str, message: filter_pb2.FieldIn) -> filters.Filter:
        self._check_field(path, message.field)
        self._violations.check_count(f"{path}.values", len(message.values), 1, filters.MAX_VALUES)
        values: list[filters.FilterValue] = []
        for i, value in enumerate(message.values[: filters.MAX_VALUES]):
            attributes.check_value(self._violations, f"{path}.values[{i}]", value)
            if value.WhichOneof("kind") in ("string_list_value", "time_value"):
                self._violations.add(f"{path}.values[{i}]", "is a list or a time; use words, numbers or booleans")
            elif value.WhichOneof("kind") is not None:
                values.append(attributes.value_from_proto(value))  # type: ignore[arg-type]
        return filters.FieldIn(path, message.field, tuple(values))

    def _number_range(self, path: str, message: filter_pb2.NumberRange) -> filters.Filter:
        self._check_field(path, message.field)
        low = message.min if message.HasField("min") else None
        high = message.max if message.HasField("max") else None
        if low is None and high is None:
            self._violations.add(path, "has no bound; set min or max")
        for name, bound in (("min", low), ("max", high)):
            if bound is not None and np.isnan(bound):
                self._violations.add(f"{path}.{name}", "is not a number")
        return filters.NumberRange(path, message.field, low, high)

    def _time_range(self, path: str, message: filter_pb2.TimeRange) -> filters.Filter:
        self._check_field(path, message.field)
        bounds: dict[str, datetime | None] = {"from": None, "until": None}
        for name in bounds:
            if message.HasField(name):  # type: ignore[arg-type]
                before = len(self._violations.found)
                self._violations.check_timestamp(f"{path}.{name}", getattr(message, name))
                if len(self._violations.found) == before:
                    bounds[name] = to_moment(getattr(message, name))
        if not message.HasField("from") and not message.HasField("until"):
            self._violations.add(path, "has no bound; set from or until")
        return filters.TimeRange(path, message.field, bounds["from"], bounds["until"])

    def _check_field(self, path: str, field: str) -> None:
        name = field.removeprefix("attributes.")
        if field not in filters.BUILT_IN_KINDS and (name == field or not name):
            known = ", ".join(sorted(filters.BUILT_IN_KINDS))
            self._violations.add(f"{path}.field", f"{field!r} is no field; use {known} or attributes.NAME")


# ---- vectors

DTYPES: dict[int, np.dtype[Any]] = {
    embedding_pb2.VECTOR_DTYPE_UNSPECIFIED: np.dtype("<f4"),
    embedding_pb2.VECTOR_DTYPE_FLOAT32: np.dtype("<f4"),
    embedding_pb2.VECTOR_DTYPE_FLOAT16: np.dtype("<f2"),
}


def vector_from_proto(
    violations: Violations, path: str, message: embedding_pb2.Embedding
) -> NDArray[np.float32] | None:
    """A vector, shape (dimensions,), as long as it came; None when something is wrong with it, which is then noted."""
    dtype = DTYPES.get(message.dtype)
    if dtype is None:
        violations.add(f"{path}.dtype", "is unknown; use FLOAT32 or FLOAT16")
        return None
    if message.dimensions < 1 or len(message.data) != message.dimensions * dtype.itemsize:
        violations.add(
            f"{path}.data",
            f"has {len(message.data)} bytes; {message.dimensions} dimensions of {dtype.name} need "
            f"{message.dimensions * dtype.itemsize}",
        )
        return None
    vector = np.frombuffer(message.data, dtype=dtype)
    if not np.isfinite(vector).all() or not vector.any():
        violations.add(f"{path}.data", "has NaN or infinity, or is the zero vector")
        return None
    return vector.astype(np.float32)


def matrix_from_proto(message: embedding_pb2.EmbeddingMatrix) -> NDArray[np.float32]:
    """The rows of a matrix that another service sent.

    Raises:
        ValueError: It is not what it says it is.
    """
    rows: NDArray[np.float32] = np.frombuffer(message.data, dtype=DTYPES[message.dtype]).astype(np.float32)
    return rows.reshape(message.rows, message.dimensions)


def fill_matrix(target: embedding_pb2.EmbeddingMatrix, rows: NDArray[np.float16], fingerprint: str) -> None:
    """FLOAT16 rows for the wire."""
    target.data = rows.astype("<f2", copy=False).tobytes()
    target.dtype = embedding_pb2.VECTOR_DTYPE_FLOAT16
    target.rows, target.dimensions = rows.shape
    target.space_fingerprint = fingerprint
