"""What a learned ranker reads of each candidate: one row a candidate, one column a feature, NaN where nothing is known.

The same function for training and for serving, on the same opinions; so what is learned is what is served.
"""

from __future__ import annotations

import numpy as np

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.scorers.scorer import Opinions
from ranking_service.scorers.weighted_sum import z_scores
from ranking_service.taste import Taste

SOURCES = (
    SourceKind.QUERY,
    SourceKind.PROFILE,
    SourceKind.HISTORY,
    SourceKind.TRANSITION,
    SourceKind.SEQUENCE,
    SourceKind.COLLABORATIVE,
    SourceKind.COMMUNITY,
    SourceKind.NEIGHBOURS,
    SourceKind.FACTORS,
    SourceKind.POPULAR,
    SourceKind.FRESH,
)
"""Sources whose opinions are features."""

_OF_SOURCE = ("z", "raw", "rank")
_OF_ALL = ("blend", "proposed_by", "nudge", "like_latest", "like_recent", "age_days", "categories")
_OF_USER = ("likes", "since_latest_h", "interests")
NAMES: tuple[str, ...] = (
    *(f"{kind.name.lower()}.{part}" for kind in SOURCES for part in _OF_SOURCE),
    *_OF_ALL,
    *(f"user.{name}" for name in _OF_USER),
)
"""Names of the columns. A bundle says which it was trained with; one trained with others is refused."""

_RECENT = 3


def features(taste: Taste, pool: Pool, opinions: Opinions, blend: Floats) -> Floats:
    """The features of every candidate, shape (n, len(NAMES)).

    Args:
        taste: The user.
        pool: The candidates.
        opinions: What the sources think of them.
        blend: The relevance that the weighted sum gives each, shape (n,).
    """
    n = len(pool)
    out = np.full((n, len(NAMES)), np.nan, np.float32)
    proposed = np.zeros(n, np.float32)
    for place, kind in enumerate(SOURCES):
        column = len(_OF_SOURCE) * place
        evidence, said = opinions.evidence.get(kind), pool.provenance.get(kind)
        if evidence is not None:
            out[:, column] = z_scores(evidence, opinions.resolutions[kind])
            out[:, column + 1] = evidence
        if said is not None:
            there = said.ranks > 0
            proposed += there
            out[there, column + 2] = np.log(said.ranks[there])
    column = len(_OF_SOURCE) * len(SOURCES)
    latest, recent = _likeness(taste, pool)
    age = np.where(pool.created != 0, np.maximum(taste.query.now - pool.created, 0.0) / 86_400.0, np.nan)
    of_all = (
        blend,
        proposed,
        opinions.nudge,
        latest,
        recent,
        np.log1p(age),
        np.array([len(item.categories) for item in pool.items], np.float32),
    )
    for values in of_all:
        out[:, column] = values
        column += 1
    since = (taste.query.now - taste.likes[0].time) / 3600.0 if taste.likes and taste.likes[0].time else np.nan
    out[:, column:] = (np.log1p(len(taste.likes)), np.log1p(max(since, 0.0)), len(taste.interests))
    return out


def _likeness(taste: Taste, pool: Pool) -> tuple[Floats, Floats]:
    """Cosine of each candidate to the item liked last, and the largest to the last three."""
    rows = []
    for anchor in taste.likes[:_RECENT]:
        known = taste.known_items.get(anchor.item_id)
        if known is not None and known.vector.shape[0] == pool.vectors.shape[1]:
            rows.append(pool.vectors @ known.vector)
    if not rows:
        nothing = np.full(len(pool), np.nan, np.float32)
        return nothing, nothing
    return rows[0], np.stack(rows).max(axis=0)
