"""For sources that score all items they know at once: propose the best, remember the scores of the others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ranking_service.candidate import Floats, Pool
from ranking_service.filters.filters import dropped_among, dropped_ids
from ranking_service.sources.source import Plan
from ranking_service.taste import Taste

# More than this the user is done with among the best are not looked past.
_LOOKED_PAST = 500


def best_of(taste: Taste, scores: Floats, item_ids: Sequence[str], rows: Mapping[str, int], limit: int) -> Plan:
    """The best items with a score above 0 that the user may still be shown.

    Args:
        taste: Whose list it is.
        scores: Of every item that the source knows, shape (n,).
        item_ids: Of these.
        rows: Row by id.
        limit: Items wanted.
    """
    wanted = min(limit + min(sum(map(len, dropped_ids(taste))), _LOOKED_PAST), len(scores))
    found = np.argpartition(-scores, wanted - 1)[:wanted] if wanted < len(scores) else np.arange(len(scores))
    best = found[np.argsort(-scores[found], kind="stable")]
    best = best[scores[best] > 0.0]
    pairs = [(item_ids[row], score) for row, score in zip(best.tolist(), scores[best].tolist(), strict=True)]
    gone = dropped_among((item_id for item_id, _ in pairs), taste)
    proposals = [pair for pair in pairs if pair[0] not in gone][:limit]

    def score_of(ids: Sequence[str]) -> Floats:
        places = np.array([rows.get(item_id, -1) for item_id in ids], np.int64)
        return np.where(places >= 0, scores[places], np.nan).astype(np.float32)

    return Plan(proposals=tuple(proposals), score_of=score_of)


def scores_of_pool(plan: Plan, pool: Pool) -> Floats | None:
    """What the source thinks of every candidate; items it does not know are as good as the worst that it does."""
    if plan.score_of is None or not len(pool):
        return None
    scores = plan.score_of(pool.ids)
    known = np.isfinite(scores)
    return np.where(known, scores, scores[known].min()).astype(np.float32) if known.any() else None
