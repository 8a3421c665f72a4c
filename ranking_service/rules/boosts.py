"""BOOST and BURY: what the house adds to the relevance, in its own unit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ranking_service.candidate import Floats, Pool
from ranking_service.rules.questions import matching
from ranking_service.rules.rule import Rule, RuleAction
from ranking_service.scorers.weighted_sum import Scores

_SIGNS = {RuleAction.BOOST: 1.0, RuleAction.BURY: -1.0}


def boosted(scores: Scores, pool: Pool, rules: tuple[Rule, ...]) -> Scores:
    """The scores with every boost and bury added, each `strength` standard deviations of the relevance in this pool.

    Comes after the scorer, whose scale is its own: what a learned ranker orders keeps the values of the blend.
    """
    changing = [rule for rule in rules if rule.action in _SIGNS]
    if not changing or len(pool) == 0:
        return scores
    # Where all are equal any unit makes the difference.
    unit = float(scores.total.std()) or 1.0
    by_rule = {}
    for rule in changing:
        by_rule[rule.id] = np.zeros(len(pool), dtype=np.float32)
        by_rule[rule.id][matching(pool, rule)] = _SIGNS[rule.action] * rule.strength * unit
    shift: Floats = np.sum(list(by_rule.values()), axis=0)
    return replace(scores, total=scores.total + shift, nudge=scores.nudge + shift, by_rule=by_rule)
