"""What comes next, in the eyes of a model trained on everybody's sequences. Only where a bundle brings one."""

from __future__ import annotations

import numpy as np

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.sources.source import Ask, Plan
from ranking_service.taste import Taste
from ranking_service.vector_cache import TextVector

SEQUENCE_ASK = "sequence"


class SequenceSource:
    """Items with the largest inner product with the user's vector, which is made of the events of this second."""

    kind = SourceKind.SEQUENCE
    resolution = 0.1

    def __init__(self, limit: int) -> None:
        self._limit = limit

    def plan(self, taste: Taste) -> Plan:
        """One vector query in the model's space, which also scores what others propose."""
        model = taste.sequence
        if model is None or not taste.likes:
            return Plan()
        semantic = {item_id: known.vector for item_id, known in taste.known_items.items()}
        vector = model.user_vector([anchor.item_id for anchor in taste.likes], semantic)
        if vector is None:
            return Plan()
        like = TextVector(vector, model.fingerprint)
        ask = Ask(SEQUENCE_ASK, like, self._limit, space=model.space, version=model.version, score_all=True)
        return Plan(asks=(ask,))

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """The inner product; an item that has no vector in the space is as good as the worst that has one."""
        scores = pool.query_scores.get(SEQUENCE_ASK)
        if scores is None or not np.isfinite(scores).any():
            return None
        return np.nan_to_num(scores, nan=float(np.nanmin(scores))).astype(np.float32)
