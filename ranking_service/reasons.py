"""Why an item is in a list, in a sentence of the reader's language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ranking_service.candidate import Floats, SourceKind
from ranking_service.reason_texts import NO_TITLE, PLAIN, quote, verb
from ranking_service.selectors.slate import Slate
from ranking_service.taste import Anchor, Taste

Followers = Callable[[str], frozenset[str]]
"""The items that often follow an item."""


@dataclass(frozen=True, slots=True)
class Reason:
    """The source that spoke loudest, a sentence, and the items it speaks of."""

    source: SourceKind
    text: str
    item_ids: tuple[str, ...] = ()


def loudest_source(slate: Slate, row: int, explored: bool) -> SourceKind:
    """The source that added most to the relevance, among those that proposed the item."""
    if explored:
        return SourceKind.EXPLORATION
    proposers = [
        kind for kind, said in slate.provenance.items() if said.ranks[row] > 0 and kind in slate.scores.by_source
    ]
    if not proposers:
        proposers = [kind for kind, said in slate.provenance.items() if said.ranks[row] > 0]
    return max(proposers, key=lambda kind: _contribution(slate, kind, row))


class Reasons:
    """The sentences of one list. What they need of the user's history is put together once, for all of its places."""

    def __init__(self, slate: Slate, followers: Followers) -> None:
        self._slate, self._followers = slate, followers

    def of(self, row: int, source: SourceKind) -> Reason:
        """The sentence for the source that spoke loudest for a row."""
        taste = self._slate.taste
        language = "zh" if taste.query.locale.lower().startswith("zh") else "en"
        if source is SourceKind.QUERY and not taste.query.text:
            return Reason(source, PLAIN[language]["search"].format(quote(taste.search_text)))
        if source in (SourceKind.HISTORY, SourceKind.SIMILAR):
            return _about(source, self._nearest_like(row), taste, language)
        if source is SourceKind.TRANSITION:
            return _about(source, self._followed_like(row), taste, language)
        return Reason(source, PLAIN[language][source.name.lower()])

    def _nearest_like(self, row: int) -> Anchor | None:
        """The item of the user's history that is most like the candidate, which may be of that history itself."""
        known, vectors = self._known_likes
        if vectors.shape[1] != self._slate.vectors.shape[1]:
            return None
        closeness = vectors @ self._slate.vectors[row].astype(np.float32)
        candidate = self._slate.items[row].id
        others = [place for place, anchor in enumerate(known) if anchor.item_id != candidate]
        return known[max(others, key=closeness.__getitem__)] if others else None

    def _followed_like(self, row: int) -> Anchor | None:
        candidate, likes = self._slate.items[row].id, self._slate.taste.likes
        return next((anchor for anchor in likes[:5] if candidate in self._followers(anchor.item_id)), None)

    @cached_property
    def _known_likes(self) -> tuple[list[Anchor], Floats]:
        """The likes of which there is a vector, and these, shape (m, d)."""
        taste = self._slate.taste
        known = [anchor for anchor in taste.likes if anchor.item_id in taste.known_items]
        vectors = [taste.known_items[anchor.item_id].vector for anchor in known]
        return known, np.stack(vectors) if vectors else np.zeros((0, 1), np.float32)


def _about(source: SourceKind, anchor: Anchor | None, taste: Taste, language: str) -> Reason:
    title = (
        taste.known_items[anchor.item_id].title if anchor is not None and anchor.item_id in taste.known_items else ""
    )
    if anchor is None or not title:
        return Reason(source, NO_TITLE[language][source.name.lower()])
    sentence = (
        verb(anchor.event_type, language) if source is SourceKind.HISTORY else PLAIN[language][source.name.lower()]
    )
    return Reason(source, sentence.format(quote(title)), (anchor.item_id,))


def _contribution(slate: Slate, kind: SourceKind, row: int) -> float:
    contributions = slate.scores.by_source.get(kind)
    return float(contributions[row]) if contributions is not None else float("-inf")
