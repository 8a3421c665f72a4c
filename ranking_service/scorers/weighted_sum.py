"""Relevance as a weighted sum of squashed z-scores over the pool.

    score(i) = sum over sources s of  w_s * squash((e_s(i) - mean e_s) / max(std e_s, resolution_s))
               + prior, language, aversion and familiarity (see `scorers.nudges`)

where `e_s(i)` is the evidence of source s for candidate i, filled in also where s did not propose i.

Sources speak for a candidate, hardly against it: whoever likes two kinds of things wants both, not what lies between.
On MovieLens (leave-last-out, 608 users) no loss could be measured, and a profile text is heard beside a history that
says something else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ranking_service.candidate import Floats, Pool, SourceKind

# Sparse evidence gives z-scores beyond 10. From here on they grow with their logarithm only: no source carries an item
# on its own, and yet its best stays its best (cut off, all of the best would be equal: that cost two thirds of the
# hits).
_KNEE = 2.0
# What is left of a z-score below 0: enough to keep an order.
_AGAINST = 0.1


@dataclass(frozen=True, slots=True)
class Scores:
    """Relevance and what it is made of; all shapes (n,).

    Attributes:
        total: The sum of everything below.
        by_source: Weighted, squashed z-scores.
        nudge: Everything that is no source's.
        evidence: What the sources' part was made of, for whoever asks why.
        by_rule: What of the nudge each rule added, by the rule's id.
        ranked_by: What a learned ranker read, shape (n, features), rows of NaN where it read nothing; None: there was
            none.
        read_names: Names of these features.
        chance: Of each candidate that the user acts on it once shown, in [0, 1]; None: the relevance is not on a scale
            that chances were fitted to.
    """

    total: Floats
    by_source: Mapping[SourceKind, Floats]
    nudge: Floats
    evidence: Mapping[SourceKind, Floats] = field(default_factory=dict)
    by_rule: Mapping[str, Floats] = field(default_factory=dict)
    ranked_by: Floats | None = None
    read_names: tuple[str, ...] = ()
    chance: Floats | None = None

    def take(self, rows: np.ndarray[tuple[int], np.dtype[np.int32]]) -> Scores:
        """Only these candidates, in their order."""
        return Scores(
            self.total[rows],
            {k: v[rows] for k, v in self.by_source.items()},
            self.nudge[rows],
            {k: v[rows] for k, v in self.evidence.items()},
            {k: v[rows] for k, v in self.by_rule.items()},
            None if self.ranked_by is None else self.ranked_by[rows],
            self.read_names,
            None if self.chance is None else self.chance[rows],
        )


def z_scores(evidence: Floats, resolution: float) -> Floats:
    """Evidence in standard deviations from its mean; differences below `resolution` mean little."""
    if len(evidence) == 0:
        return evidence
    z: Floats = (evidence - evidence.mean()) / max(float(evidence.std()), resolution)
    return z


def squash(z: Floats) -> Floats:
    """Keeps the order of z-scores, bends what is far above 0 and flattens what is below."""
    bent = np.where(z <= _KNEE, z, _KNEE + np.log1p(np.maximum(z - _KNEE, 0.0)))
    result: Floats = np.where(z < 0, _AGAINST * z, bent).astype(np.float32)
    return result


def weighted_sum(
    pool: Pool,
    evidence: Mapping[SourceKind, Floats],
    resolutions: Mapping[SourceKind, float],
    weights: Mapping[SourceKind, float],
    nudge: Floats,
) -> Scores:
    """Scores every candidate.

    Args:
        pool: The candidates, n of them.
        evidence: Of each source that has an opinion, shape (n,).
        resolutions: Of each source.
        weights: Of each source; sources without one count nothing.
        nudge: Added as it is, shape (n,).
    """
    total = nudge.astype(np.float32, copy=True)
    by_source = {}
    for kind, values in evidence.items():
        weight = weights.get(kind, 0.0)
        by_source[kind] = (weight * squash(z_scores(values, resolutions[kind]))).astype(np.float32)
        total += by_source[kind]
    return Scores(total, by_source, nudge, evidence)
