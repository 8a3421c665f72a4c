"""Like what the user acted on, interest by interest, and away from what the user disliked."""

from __future__ import annotations

import numpy as np

from ranking_service.candidate import Floats, Pool, SourceKind
from ranking_service.interests import Interest
from ranking_service.sources.source import Ask, Plan
from ranking_service.taste import Taste

# Items of an interest that stand for it; the heaviest say enough and keep the request small.
_EXAMPLES_PER_INTEREST = 16
# All dislikes of an interest together weigh at most this share of its likes: they bend the direction, they do not
# turn it.
_DISLIKE_SHARE = 0.5
# How much a small interest counts against the largest: its weight's ratio to this power.
_INTEREST_FLATTENING = 0.25


class HistorySource:
    """Nearest items to each interest, as one query by examples an interest."""

    kind = SourceKind.HISTORY
    resolution = 0.02

    def __init__(self, limit: int) -> None:
        """`limit` hits are shared among the interests by weight, none below a quarter of it."""
        self._limit = limit

    def plan(self, taste: Taste) -> Plan:
        """One query an interest."""
        asks = []
        nearest = _nearest_interests(taste)
        for number, interest in enumerate(taste.interests):
            likes = {
                taste.likes[row].item_id: taste.likes[row].weight for row in interest.members[:_EXAMPLES_PER_INTEREST]
            }
            against = {a.item_id: a.weight for a, of in zip(taste.dislikes, nearest, strict=True) if of == number}
            limit = max(round(self._limit * interest.weight), self._limit // 4, 1)
            asks.append(Ask(f"history.{number}", _with_dislikes(likes, against), limit))
        return Plan(asks=tuple(asks))

    def evidence(self, taste: Taste, plan: Plan, pool: Pool) -> Floats | None:
        """Similarity to the interest it fits best; small interests count a little less."""
        rows = interest_similarities(taste, pool)
        return None if rows is None else rows.max(axis=0)


def interest_similarities(taste: Taste, pool: Pool) -> Floats | None:
    """Weighted similarity of every candidate to every interest, shape (interests, n); None without vectors."""
    rows = []
    for number, interest in enumerate(taste.interests):
        similarity = pool.similarity(f"history.{number}")
        if similarity is not None:
            rows.append(similarity * _discount(interest, taste.interests[0]))
    return np.stack(rows) if rows else None


def _discount(interest: Interest, heaviest: Interest) -> float:
    return float((interest.weight / heaviest.weight) ** _INTEREST_FLATTENING)


def _with_dislikes(likes: dict[str, float], against: dict[str, float]) -> tuple[tuple[str, float], ...]:
    """The examples of an interest, with the dislikes that lie nearest to it as negative ones."""
    heaviest, total, total_against = max(likes.values()), sum(likes.values()), sum(against.values())
    scale = min(1.0, _DISLIKE_SHARE * total / total_against) if against else 0.0
    examples = [(item_id, weight / heaviest) for item_id, weight in likes.items()]
    # A weight that decay has brought to nothing is left out: retrieval refuses zero weights.
    examples += [(item_id, -weight * scale / heaviest) for item_id, weight in against.items()]
    return tuple((item_id, weight) for item_id, weight in examples if abs(weight) > 1e-6)


def _nearest_interests(taste: Taste) -> list[int]:
    """Of each dislike the interest with the item most like it: the first where nothing is known of it, -1: none is."""
    known = [taste.known_items.get(anchor.item_id) for anchor in taste.dislikes]
    vectors = [item.vector for item in known if item is not None]
    if not vectors or not taste.interests:
        return [0] * len(known)
    closeness = np.full((len(taste.interests), len(vectors)), -1.0)
    for row, interest in zip(closeness, taste.interests, strict=True):
        examples = [taste.known_items.get(taste.likes[n].item_id) for n in interest.members[:_EXAMPLES_PER_INTEREST]]
        members = [item.vector for item in examples if item is not None]
        if members:
            row[:] = (np.stack(vectors) @ np.stack(members).T).max(axis=1)
    nearest = iter(np.where(closeness.max(axis=0) > 0, closeness.argmax(axis=0), -1).tolist())
    return [0 if item is None else next(nearest) for item in known]
