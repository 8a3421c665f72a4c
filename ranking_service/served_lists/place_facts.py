"""What stood behind each place of a page: features, nudges, rules, the place before diversity."""

from __future__ import annotations

import numpy as np

from ranking_service.candidate import Floats, Pool
from ranking_service.page import Page
from ranking_service.rules.rule import RuleAction
from ranking_service.scorers import nudges
from ranking_service.selectors.exploration_slots import Place
from ranking_service.selectors.slate import Slate
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

# What is left of the nudge below this is rounding.
_ROUNDING = 1e-5


def place_facts(slate: Slate, page: Page) -> list[pb2.ExplainResponse]:
    """Of each place of a page what Explain says beside the item itself."""
    rows = [place.row for place in page.places]
    parts = _nudges(slate, rows)
    return [
        pb2.ExplainResponse(
            rank_before_diversity=place.row + 1 if place.row < slate.main else 0,
            features=_features(slate, place.row, {name: float(values[n]) for name, values in parts.items()}),
            propensity=place.propensity,
            rules=_rules(slate, place),
        )
        for n, place in enumerate(page.places)
    ]


def _nudges(slate: Slate, rows: list[int]) -> dict[str, Floats]:
    """The parts of the nudge of some rows; the same functions that made it, on the same vectors."""
    items, taste = [slate.items[row] for row in rows], slate.taste
    compact = slate.vectors[rows]
    pool = Pool([item.id for item in items], items, compact.astype(np.float32), compact, {}, {})
    parts: dict[str, Floats] = {
        "prior": nudges.prior(pool),
        "language": nudges.language(pool, taste.query.locale),
        "aversion": -nudges.aversion(taste, pool),
        "familiarity": -nudges.familiarity(taste, pool),
    }
    if slate.scores.by_rule:
        parts["rules"] = np.sum([shift[rows] for shift in slate.scores.by_rule.values()], axis=0)
    # The only one that the scorer adds by itself.
    parts["new_items"] = slate.scores.nudge[rows] - np.sum(list(parts.values()), axis=0)
    return parts


def _features(slate: Slate, row: int, parts: dict[str, float]) -> dict[str, float]:
    scores = slate.scores
    found = {f"{kind.name.lower()}.evidence": float(values[row]) for kind, values in scores.evidence.items()}
    found |= {f"{kind.name.lower()}.contribution": float(values[row]) for kind, values in scores.by_source.items()}
    found |= {f"nudge.{name}": value for name, value in parts.items() if abs(value) > _ROUNDING}
    if scores.ranked_by is not None:
        read = zip(scores.read_names, scores.ranked_by[row].tolist(), strict=True)
        found |= {name: value for name, value in read if value == value}
    return found


def _rules(slate: Slate, place: Place) -> list[pb2.AppliedRule]:
    """The rules that moved the score, and those that gave the place."""
    in_force = slate.taste.query.rules
    by_id = {rule.id: rule for rule in in_force}
    found = [
        pb2.AppliedRule(rule_id=rule_id, action=by_id[rule_id].action.value, score=float(shift[place.row]))  # type: ignore[arg-type]
        for rule_id, shift in slate.scores.by_rule.items()
        if shift[place.row] != 0 and rule_id in by_id
    ]
    if slate.rules is None:
        return found
    if place.pinned:
        positions = {position for position, row in slate.rules.pins.items() if row == place.row}
        pins = [rule for rule in in_force if rule.action is RuleAction.PIN and rule.position in positions]
        found += [pb2.AppliedRule(rule_id=rule.id, action=pb2.RULE_ACTION_PIN) for rule in pins[:1]]
    if place.floor >= 0:
        floors = [rule for rule in in_force if rule.action is RuleAction.EXPOSURE_FLOOR]
        found.append(pb2.AppliedRule(rule_id=floors[place.floor].id, action=pb2.RULE_ACTION_EXPOSURE_FLOOR))
    if place.quotas:
        quotas = [rule for rule in in_force if rule.action is RuleAction.QUOTA]
        found += [pb2.AppliedRule(rule_id=quotas[n].id, action=pb2.RULE_ACTION_QUOTA) for n in place.quotas]
    return found
