"""Hidden and disliked items never come back, whatever the request says."""

from __future__ import annotations

from collections.abc import Set

from ranking_service.taste import Taste


def hidden(taste: Taste) -> Set[str]:
    """Ids the user does not want to see again."""
    return taste.state.hidden
