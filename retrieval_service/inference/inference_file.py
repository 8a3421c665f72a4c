"""The file in which a deployment writes what is inferred from items; docs/intents.md describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from retrieval_service.inference.inferred_attribute import Inference, InferenceBook, InferredAttribute
from service_runtime.attributes import MAX_WORDS, is_name
from service_runtime.label_files import (
    CatalogName,
    FilePart,
    Labels,
    Threshold,
    WrittenLabel,
    check_names,
    label_set,
    read_label_file,
)

# One label can reach more than a half only where the others do not: where an item may have several, that is too much.
_USUAL_THRESHOLD, _USUAL_THRESHOLD_OF_SEVERAL = 0.5, 0.25
_MAX_ATTRIBUTES = 16


def _attribute_name(value: str) -> str:
    if not is_name(value):
        message = "is no attribute name; use 1 to 64 of a-z, 0-9 and _, starting with a letter"
        raise PydanticCustomError("attribute_name", message)
    return value


class _WrittenValue(WrittenLabel):
    rest: bool = False


class _WrittenAttribute(FilePart):
    name: Annotated[str, AfterValidator(_attribute_name)]
    several: bool = False
    threshold: Threshold | None = None
    labels: Labels[_WrittenValue]

    def attribute(self) -> InferredAttribute:
        usual = _USUAL_THRESHOLD_OF_SEVERAL if self.several else _USUAL_THRESHOLD
        rest = frozenset(label.name for label in self.labels if label.rest)
        return InferredAttribute(self.name, label_set(self.labels, self.threshold or usual), self.several, rest)


def _checked(written: list[_WrittenAttribute]) -> list[_WrittenAttribute]:
    check_names([each.name for each in written])
    for place, each in enumerate(written):
        if each.several and len(each.labels) > MAX_WORDS:
            message = "[{place}] has {count} labels; an attribute with several values can have at most {limit}"
            details = {"place": place, "count": len(each.labels), "limit": MAX_WORDS}
            raise PydanticCustomError("labels", message, details)
    return written


_Attributes = Annotated[list[_WrittenAttribute], Field(max_length=_MAX_ATTRIBUTES), AfterValidator(_checked)]


class _InferenceFile(FilePart):
    attributes: _Attributes = Field(default_factory=list)
    catalogs: dict[CatalogName, _Attributes] = Field(default_factory=dict)


def read_inference(path: Path) -> InferenceBook:
    """What a file says.

    Raises:
        LabelFileWrong: With everything that is wrong with it.
    """
    written = read_label_file(path, _InferenceFile)
    own = {catalog: _inference(attributes) for catalog, attributes in written.catalogs.items()}
    return InferenceBook(_inference(written.attributes), own)


def _inference(written: list[_WrittenAttribute]) -> Inference:
    return Inference({each.name: each.attribute() for each in written})
