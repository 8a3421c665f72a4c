"""Which words tell what somebody is up to."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ranking_service.taste import Taste
from ranking_service.vector_cache import KnownItem

# Without a session of the caller's own, what was done within this time belongs together; after as long without an
# event a session is over.
_SESSION_S = 1800.0
_MAX_TITLES = 5


@dataclass(frozen=True, slots=True)
class Words:
    """Words of a user.

    Attributes:
        text: Not blank.
        share: In (0, 1]: what time has left of them.
    """

    text: str
    share: float = 1.0


def said(taste: Taste) -> Words | None:
    """What was typed: the text of the request, else the latest search of the last day."""
    if taste.query.text:
        return Words(taste.query.text)
    if taste.search_text and taste.search_share > 0:
        return Words(taste.search_text, taste.search_share)
    return None


def session_items(taste: Taste) -> list[str]:
    """What was acted on in the present session, latest first."""
    if taste.query.anonymous is not None:
        return [anchor.item_id for anchor in taste.likes[:_MAX_TITLES]]
    recent, now = taste.state.recent, taste.query.now
    if not recent or now - recent[-1].time > _SESSION_S:
        return []
    session = recent[-1].session_id
    ids = [
        each.item_id
        for each in reversed(recent)
        if each.item_id
        and each.strength > 0
        and (each.session_id == session if session else now - each.time <= _SESSION_S)
    ]
    return list(dict.fromkeys(ids))[:_MAX_TITLES]


def done(item_ids: list[str], known: Mapping[str, KnownItem]) -> Words | None:
    """The titles of these items, as far as they are known."""
    titles = [known[item_id].title.strip() for item_id in item_ids if item_id in known]
    text = "\n".join(dict.fromkeys(title for title in titles if title))
    return Words(text) if text else None
