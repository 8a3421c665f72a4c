"""Small and fixed corrections of the relevance, in units of its z-scores."""

from __future__ import annotations

import numpy as np

from ranking_service.candidate import Floats, Pool
from ranking_service.taste import Taste

# From the worst to the best prior; unset priors lie in the middle.
_PRIOR = 0.2
# Items in the language of the request, among equals.
_LANGUAGE = 0.15
# An item that is the same as a disliked one; falls in proportion to the cosine.
_AVERSION = 2.0
# What the user just acted on and the policy lets come back: like nothing so much as itself, and yet no news.
_FAMILIAR = 2.0


def nudges(taste: Taste, pool: Pool) -> Floats:
    """The sum of prior, language, aversion and familiarity for each candidate, shape (n,)."""
    return prior(pool) + language(pool, taste.query.locale) - aversion(taste, pool) - familiarity(taste, pool)


def prior(pool: Pool) -> Floats:
    """The caller's own opinion of each item, around 0."""
    values = np.array([item.prior if item.HasField("prior") else 0.5 for item in pool.items], dtype=np.float32)
    return _PRIOR * (values - 0.5)


def language(pool: Pool, locale: str) -> Floats:
    """A bonus for items in the language of the locale; the region does not count."""
    if not locale:
        return np.zeros(len(pool), dtype=np.float32)
    wanted = _primary(locale)
    return np.array([_LANGUAGE if _primary(item.language) == wanted else 0.0 for item in pool.items], dtype=np.float32)


def aversion(taste: Taste, pool: Pool) -> Floats:
    """How close each candidate is to what the user disliked: the largest cosine, weighed by how much and how lately."""
    worst = np.zeros(len(pool), dtype=np.float32)
    heaviest = max((anchor.weight for anchor in (*taste.likes, *taste.dislikes)), default=1.0)
    for anchor in taste.dislikes:
        known = taste.known_items.get(anchor.item_id)
        if known is not None and known.vector.shape[0] == pool.vectors.shape[1]:
            np.maximum(worst, (pool.vectors @ known.vector) * (anchor.weight / heaviest), out=worst)
    return _AVERSION * worst


def familiarity(taste: Taste, pool: Pool) -> Floats:
    """A malus for items of the user's recent history, unless the request asks for seen items."""
    if taste.query.include_seen:
        return np.zeros(len(pool), dtype=np.float32)
    recent = {anchor.item_id for anchor in taste.likes}
    return np.array([_FAMILIAR if item_id in recent else 0.0 for item_id in pool.ids], dtype=np.float32)


def _primary(tag: str) -> str:
    return tag.split("-", 1)[0].lower()
