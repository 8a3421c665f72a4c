"""Items that this user was shown as often as a rule allows."""

from __future__ import annotations

from collections.abc import Set

from ranking_service.rules.caps import capped_everywhere
from ranking_service.taste import Taste


def capped(taste: Taste) -> Set[str]:
    """Ids of items that a cap on all items keeps away; caps on some items are conditions of the search."""
    return capped_everywhere(taste) if taste.query.rules else frozenset()
