"""Items that the request excludes."""

from __future__ import annotations

from collections.abc import Set

from ranking_service.taste import Taste


def excluded(taste: Taste) -> Set[str]:
    """Ids named by the caller."""
    return taste.query.excluded
