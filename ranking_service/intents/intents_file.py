"""The file in which a deployment writes its intents; docs/intents.md describes it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from ranking_service.candidate import SourceKind
from ranking_service.intents.intent import Intent, IntentBook, IntentSet
from service_runtime.label_files import CatalogName, FilePart, Labels, WrittenLabel, label_set, read_label_file

# Above what the default model gave a wrong label on short texts that name a thing (.58), below what it gave nearly all
# right ones (.71 and more); docs/intents.md, "How well".
_USUAL_THRESHOLD = 0.6
_Source = Literal[
    "query",
    "profile",
    "history",
    "transition",
    "sequence",
    "collaborative",
    "neighbours",
    "factors",
    "community",
    "popular",
    "fresh",
    "catalog",
]
_Factor = Annotated[float, Field(ge=0, le=10, allow_inf_nan=False)]
_Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]


class _WrittenIntent(WrittenLabel):
    weights: dict[_Source, _Factor] = Field(default_factory=dict)
    diversity: _Share | None = None
    exploration: _Share | None = None

    def intent(self) -> Intent:
        factors = {SourceKind[name.upper()]: factor for name, factor in self.weights.items()}
        return Intent(factors, self.diversity, self.exploration)


class _IntentsFile(FilePart):
    intents: Labels[_WrittenIntent] | None = None
    catalogs: dict[CatalogName, Labels[_WrittenIntent]] = Field(default_factory=dict)


def read_intents(path: Path) -> IntentBook:
    """The intents of a file.

    Raises:
        LabelFileWrong: With everything that is wrong with it.
    """
    written = read_label_file(path, _IntentsFile)
    everywhere = _intent_set(written.intents) if written.intents is not None else None
    return IntentBook(everywhere, {name: _intent_set(intents) for name, intents in written.catalogs.items()})


def _intent_set(written: list[_WrittenIntent]) -> IntentSet:
    return IntentSet(label_set(written, _USUAL_THRESHOLD), {each.name: each.intent() for each in written})
