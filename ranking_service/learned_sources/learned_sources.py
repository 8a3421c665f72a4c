"""All that a bundle brings for sources that need something learned."""

from __future__ import annotations

from dataclasses import dataclass

from ranking_service.learned_sources.communities import Communities
from ranking_service.learned_sources.item_factors import ItemFactors
from ranking_service.learned_sources.item_table import ItemTable


@dataclass(frozen=True)
class LearnedSources:
    """What there is; None: that source is silent.

    Attributes:
        table: For COLLABORATIVE.
        factors: For FACTORS.
        communities: For COMMUNITY.
        neighbours_decay: For NEIGHBOURS, which is live: weight of an item of the history by that of the item after it.
    """

    table: ItemTable | None = None
    factors: ItemFactors | None = None
    communities: Communities | None = None
    neighbours_decay: float | None = None


NOTHING_LEARNED = LearnedSources()
