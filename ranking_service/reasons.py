"""Why an item is in a list, in a sentence of the reader's language."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from ranking_service.candidate import SourceKind
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


def reason_for(slate: Slate, row: int, source: SourceKind, followers: Followers) -> Reason:
    """The sentence for the source that spoke loudest."""
    taste, chinese = slate.taste, slate.taste.query.locale.lower().startswith("zh")
    language = "zh" if chinese else "en"
    if source is SourceKind.QUERY and not taste.query.text:
        return Reason(source, PLAIN[language]["search"].format(quote(taste.search_text)))
    if source in (SourceKind.HISTORY, SourceKind.SIMILAR):
        return _about(source, nearest_like(slate, row), taste, language)
    if source is SourceKind.TRANSITION:
        return _about(source, _followed_like(slate, row, followers), taste, language)
    return Reason(source, PLAIN[language][source.name.lower()])


def nearest_like(slate: Slate, row: int) -> Anchor | None:
    """The item of the user's history that is most like the candidate, which may be of that history itself."""
    taste, candidate = slate.taste, slate.items[row].id
    known = [a for a in taste.likes if a.item_id in taste.known_items and a.item_id != candidate]
    if not known:
        return None
    vectors = np.stack([taste.known_items[anchor.item_id].vector for anchor in known])
    if vectors.shape[1] != slate.vectors.shape[1]:
        return None
    return known[int(np.argmax(vectors @ slate.vectors[row].astype(np.float32)))]


def _followed_like(slate: Slate, row: int, followers: Followers) -> Anchor | None:
    candidate = slate.items[row].id
    return next((anchor for anchor in slate.taste.likes[:5] if candidate in followers(anchor.item_id)), None)


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
