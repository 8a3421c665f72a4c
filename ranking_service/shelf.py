"""SimilarItems as a list: what fits somebody who just looked at the given items and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from ranking_service.attribute_features.item_facts import ItemFacts
from ranking_service.candidate import SourceKind
from ranking_service.query import Anonymous, Query
from ranking_service.stages import Journal
from ranking_service.taste import Taste
from ranking_service.understanding import Understanding
from service_runtime.errors import NotFound

# What items say leads; what users did after them counts half as much, and nothing while nobody did anything.
_WEIGHTS = {SourceKind.SIMILAR: 1.0, SourceKind.TRANSITION: 0.5}


class ShelfUnderstanding:
    """The taste that a shelf stands for."""

    def __init__(self, understanding: Understanding) -> None:
        self._understanding = understanding

    async def of(self, query: Query, journal: Journal, facts: ItemFacts | None = None) -> Taste:
        """The given items as likes.

        Raises:
            NotFound: The catalogue has none of them.
        """
        taste = await self._understanding.of(query, journal, facts)
        if not taste.likes:
            named = query.anonymous.recent_item_ids if query.anonymous else ()
            raise NotFound("item", named[0] if named else "", "none of the given items exists in the catalogue")
        return taste

    async def with_vectors(self, taste: Taste, journal: Journal) -> Taste:
        """The same: a shelf has no texts."""
        return taste


def shelf_query(query: Query, item_ids: tuple[str, ...]) -> Query:
    """The query of a shelf. The given items never come back: they are what was just seen."""
    return replace(query, anonymous=Anonymous(recent_item_ids=item_ids))


def shelf_weights(taste: Taste) -> Mapping[SourceKind, float]:
    """How much each source of a shelf counts."""
    return _WEIGHTS
