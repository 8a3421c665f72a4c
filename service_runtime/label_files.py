"""Reads a YAML file that people write labels into; whatever is wrong with it is named with its place and line.

The shape is a pydantic model of the file's owner, built of the parts below.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError
from pydantic_core import PydanticCustomError

from service_runtime.label_sets import MAX_DESCRIPTIONS, MAX_EXAMPLES, MAX_LABEL_TEXTS, MAX_LABELS, Label, LabelSet
from service_runtime.validation import Violations

# A catalogue's name, an attribute's or a label's go into metrics and filters; longer ones are a mistake.
_MAX_NAME_BYTES, _MAX_TEXT_BYTES = 64, 2048
_MAX_DEPTH = 12
_MAX_FILE_BYTES = 4 << 20
UNKNOWN = "unknown"
"""What a text is that no label fits; so no label has this name."""

_WORDED = {
    "extra_forbidden": "is nothing that can be set here",
    "missing": "is missing",
    "model_type": "should be a mapping (`name: value`)",
}
Place = tuple[str | int, ...]
"""Keys and positions on the way to a value."""


class LabelFileWrong(ValueError):
    """A file that cannot be used, with every mistake, one a line."""


def _one_line(value: str) -> str:
    found = Violations()
    found.check_id("it", value, _MAX_NAME_BYTES)
    return _without(found, value)


def _no_reserved(value: str) -> str:
    if value == UNKNOWN:
        raise PydanticCustomError("reserved", "is what a text counts as that no label fits; choose another name")
    return value


def _words(value: str) -> str:
    found = Violations()
    found.check_text("it", value, _MAX_TEXT_BYTES)
    if not value.strip():
        found.add("it", "is blank")
    return _without(found, value)


def _catalog(value: str) -> str:
    found = Violations()
    found.check_catalog("it", value)
    return _without(found, value)


def _without(found: Violations, value: str) -> str:
    if found:
        raise PydanticCustomError("text", "{fault}", {"fault": found.found[0].description})
    return value


Name = Annotated[str, AfterValidator(_one_line)]
LabelName = Annotated[str, AfterValidator(_one_line), AfterValidator(_no_reserved)]
Words = Annotated[str, AfterValidator(_words)]
CatalogName = Annotated[str, AfterValidator(_catalog)]
Threshold = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]


class FilePart(BaseModel):
    """What is written in a file: nothing unknown, nothing turned into another type."""

    model_config = ConfigDict(extra="forbid", strict=True, frozen=True)


class WrittenLabel(FilePart):
    """A label as it is written."""

    name: LabelName
    descriptions: list[Words] = Field(min_length=1, max_length=MAX_DESCRIPTIONS)
    examples: list[Words] = Field([], max_length=MAX_EXAMPLES)
    threshold: Threshold | None = None

    def label(self, threshold: float) -> Label:
        """The label; `threshold` where none is written."""
        return Label(self.name, tuple(self.descriptions), tuple(self.examples), self.threshold or threshold)


L = TypeVar("L", bound=WrittenLabel)
F = TypeVar("F", bound=FilePart)


def _differ(written: list[L]) -> list[L]:
    check_names([each.name for each in written])
    texts = sum(len(each.descriptions) + len(each.examples) for each in written)
    if texts > MAX_LABEL_TEXTS:
        message = "have {count} descriptions and examples in all; at most {limit} are allowed"
        raise PydanticCustomError("texts", message, {"count": texts, "limit": MAX_LABEL_TEXTS})
    return written


Labels = Annotated[list[L], Field(min_length=2, max_length=MAX_LABELS), AfterValidator(_differ)]
"""Labels of which one is right: two or more, with different names."""


def check_names(names: Sequence[str]) -> None:
    """Each name stands once.

    Raises:
        PydanticCustomError: One does not.
    """
    for place, name in enumerate(names):
        if names.index(name) != place:
            first, again = names.index(name), place
            message = "[{again}] has the name {name} of [{first}]; names differ"
            raise PydanticCustomError("names", message, {"again": again, "name": repr(name), "first": first})


def label_set(written: Sequence[WrittenLabel], threshold: float) -> LabelSet:
    """The labels; `threshold` for those that have none of their own."""
    return LabelSet(tuple(each.label(threshold) for each in written))


def read_label_file(path: Path, shape: type[F]) -> F:
    """A file of this shape.

    Raises:
        LabelFileWrong: It cannot be read, is no YAML, or holds something else; with every mistake.
    """
    try:
        raw = path.read_bytes()
        if len(raw) > _MAX_FILE_BYTES:
            raise LabelFileWrong(f"{path}: has {len(raw)} bytes; at most {_MAX_FILE_BYTES} are allowed")
        node = yaml.compose(raw.decode("utf-8-sig"), Loader=yaml.SafeLoader)
    except OSError as error:
        raise LabelFileWrong(f"{path}: {error.strerror or error}") from None
    except UnicodeDecodeError:
        raise LabelFileWrong(f"{path}: is not UTF-8") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise LabelFileWrong(f"{path}: is not YAML: {' '.join(str(error).split())}") from None
    reading = _Reading()
    value = reading.value(node, ())
    faults = list(reading.faults)
    parsed = None
    try:
        parsed = shape.model_validate(value)
    except ValidationError as error:
        faults += [(fault["loc"], _WORDED.get(fault["type"], fault["msg"])) for fault in error.errors()]
    if faults or parsed is None:
        lines = sorted((reading.line(place), f"{_written(place)}: {text}") for place, text in faults)
        raise LabelFileWrong("\n".join(f"{path}, line {line}: {text}" for line, text in lines))
    return parsed


class _Reading:
    """Values of nodes, with the line each stands in, and names that stand twice."""

    def __init__(self) -> None:
        self.faults: list[tuple[Place, str]] = []
        self._lines: dict[Place, int] = {}
        self._scalars = yaml.SafeLoader("")

    def value(self, node: yaml.Node | None, place: Place) -> Any:
        """A node in Python: mappings, lists, words, numbers, nothing else."""
        if node is None:
            return {}
        self._lines[place] = node.start_mark.line + 1
        if len(place) > _MAX_DEPTH:
            self.faults.append((place, "is nested too deeply"))
            return None
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, (*place, i)) for i, each in enumerate(node.value)]
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, place)
        try:
            scalar = self._scalars.construct_object(node)
        except (yaml.YAMLError, ValueError) as error:
            self.faults.append((place, f"cannot be read: {' '.join(str(error).split())}"))
            return None
        return scalar

    def _mapping(self, node: yaml.MappingNode, place: Place) -> dict[Hashable, Any]:
        found: dict[Hashable, Any] = {}
        for key_node, value_node in node.value:
            key = key_node.value if isinstance(key_node, yaml.ScalarNode) else str(key_node.start_mark)
            if key in found:
                self.faults.append(((*place, key), "stands here twice"))
            found[key] = self.value(value_node, (*place, key))
        return found

    def line(self, place: Place) -> int:
        """The line of a place, or of the nearest thing around it that is there."""
        while place and place not in self._lines:
            place = place[:-1]
        return self._lines.get(place, 1)


def _written(place: Place) -> str:
    """A place as people write it: `catalogs.books[2].weights.popular`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in place if part != "[key]")
    return text.removeprefix(".") or "the file"
