"""All learned sources of a training: searched before the cases, judged with everything else, then refitted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from ranking_service.candidate import SourceKind
from ranking_service.learned_sources.learned_sources import LearnedSources
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.memory_catalog import Space
from zhiyin_offline.evaluation.protocols import Case, Rows
from zhiyin_offline.training.learned_sources.communities_step import (
    CommunitiesRecipe,
    build_communities,
    search_communities,
)
from zhiyin_offline.training.learned_sources.factors_step import FactorsRecipe, build_factors, search_factors
from zhiyin_offline.training.learned_sources.full_ranking import FullRanking
from zhiyin_offline.training.learned_sources.item_table_step import TableRecipe, build_table, search_table

OPTIONAL = (SourceKind.NEIGHBOURS, SourceKind.FACTORS, SourceKind.COMMUNITY, SourceKind.COLLABORATIVE)
"""Sources that serve only where they help, those first that are the first to go."""

NEIGHBOURS_DECAY = 0.6


@dataclass(frozen=True)
class Recipes:
    """How each learned source is made; None: there is too little to make it of."""

    table: TableRecipe | None
    factors: FactorsRecipe | None
    communities: CommunitiesRecipe | None

    def evidence(self) -> dict[str, Any]:
        """For the manifest."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def search_sources(
    dataset: Dataset,
    learned_from: Rows,
    semantic: Space,
    cases: Sequence[Case],
    seed: int,
    say: Callable[[str], None] = lambda _: None,
) -> Recipes:
    """Finds the settings of each source, on rows that hold nothing of the cases."""
    judge = FullRanking(dataset, cases, seed)
    say("item-to-item table")
    table = search_table(dataset, learned_from, judge)
    say("factors")
    factors = search_factors(dataset, learned_from, judge, seed)
    say("communities")
    return Recipes(table, factors, search_communities(dataset, learned_from, semantic, judge, seed))


def build_sources(
    recipes: Recipes, kinds: Collection[SourceKind], dataset: Dataset, rows: Rows, semantic: Space, seed: int
) -> LearnedSources:
    """The sources of these kinds, learned from these rows.

    Communities are there in any case: they find more for users who have said something and done nothing than texts and
    popularity do, and of these users the cases tell nothing.
    """
    table, factors, groups = recipes.table, recipes.factors, recipes.communities
    return LearnedSources(
        build_table(dataset, rows, table) if table and SourceKind.COLLABORATIVE in kinds else None,
        build_factors(dataset, rows, factors, seed) if factors and SourceKind.FACTORS in kinds else None,
        None
        if groups is None
        else build_communities(dataset, rows, semantic, groups, seed, of_likes=SourceKind.COMMUNITY in kinds),
        NEIGHBOURS_DECAY if SourceKind.NEIGHBOURS in kinds else None,
    )
