"""Evidence of the sources that count what users did: their own score where they proposed, nothing elsewhere."""

from __future__ import annotations

import numpy as np

from ranking_service.candidate import Doubles, Pool, SourceKind


def proposed_scores(pool: Pool, kind: SourceKind) -> Doubles | None:
    """The source's scores as shares of its best, 0 where it did not propose; None without any proposal.

    Shares, because decayed counts may be of any magnitude, beyond what single precision holds.
    """
    provenance = pool.provenance.get(kind)
    if provenance is None or not provenance.ranks.any():
        return None
    scores = np.maximum(np.nan_to_num(provenance.scores), 0.0)
    return scores / max(float(scores.max()), 1e-300)
