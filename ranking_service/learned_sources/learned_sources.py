"""All that a bundle brings for sources that need something learned."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace

from ranking_service.candidate import SourceKind
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

    def only(self, kinds: Collection[SourceKind]) -> LearnedSources:
        """Those of these kinds; communities in any case, for users who have said something and done nothing."""
        groups = self.communities
        return LearnedSources(
            self.table if SourceKind.COLLABORATIVE in kinds else None,
            self.factors if SourceKind.FACTORS in kinds else None,
            None if groups is None else replace(groups, of_likes=SourceKind.COMMUNITY in kinds),
            self.neighbours_decay if SourceKind.NEIGHBOURS in kinds else None,
        )


NOTHING_LEARNED = LearnedSources()
