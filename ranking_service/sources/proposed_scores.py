"""Evidence of the sources that count what users did: their own score where they proposed, nothing elsewhere."""

from __future__ import annotations

import numpy as np

from ranking_service.candidate import Floats, Pool, SourceKind


def proposed_scores(pool: Pool, kind: SourceKind) -> Floats | None:
    """Logarithms of the source's scores (counts are skewed), 0 where it did not propose; None without any proposal."""
    provenance = pool.provenance.get(kind)
    if provenance is None or not provenance.ranks.any():
        return None
    # Scores of unknown scale: relative to their median, so that the logarithm bends at the same place for every
    # catalogue.
    proposed = provenance.ranks > 0
    scale = max(float(np.median(provenance.scores[proposed])), 1e-12)
    return np.where(proposed, np.log1p(np.maximum(provenance.scores, 0.0) / scale), 0.0).astype(np.float32)
