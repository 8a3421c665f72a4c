"""What the recommendation reads about one user: item ids and words, never vectors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from service_runtime.attributes import AttributeScalar


@dataclass(frozen=True, slots=True)
class Interaction:
    """One event of a user on an item, or a search, as the recommendation sees it.

    Attributes:
        item_id: The item; empty for a search.
        event_type: The zhiyin.ranking.v1.EventType number.
        strength: Signed strength after the event-type table (positive: for the item, negative: against it, 0: neutral).
        time: Unix seconds.
        text: The query of a search; empty for other events.
        session_id: The caller's session, or empty.
        sequence: Of the event in the catalogue's log; orders interactions of the same time.
    """

    item_id: str
    event_type: int
    strength: float
    time: float
    text: str = ""
    session_id: str = ""
    sequence: int = 0


@dataclass(frozen=True, slots=True)
class UserState:
    """One user at one version. Immutable: a new event makes a new state.

    Attributes:
        known: False for somebody nobody ever spoke of.
        recent: The latest interactions, oldest first, bounded (settings: max_recent_interactions).
        seen: Every item id that the seen policy counts as done with (bought, finished, rated, disliked, hidden), over
            the whole history.
        hidden: The subset of ids the user never wants to see again (HIDE, DISLIKE): dropped even when seen items may
            return.
        shown: Times of the user's impressions by item, newest first, Unix seconds: of the last 30 days, at most 100 an
            item and 4,000 in all, the latest. None: not read, since no rule asked for it.
        version: Counts writes and events of the user.
        key: The store's number for the user; 0 for somebody unknown.
    """

    user_id: str
    known: bool = False
    profile: str = ""
    attributes: Mapping[str, AttributeScalar] = field(default_factory=dict)
    follows: tuple[str, ...] = ()
    recent: tuple[Interaction, ...] = ()
    seen: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    shown: Mapping[str, tuple[float, ...]] | None = None
    version: int = 0
    key: int = 0


class UserReader(Protocol):
    """Reads users; implemented by the user store with its cache."""

    async def read(
        self, catalog: str, user_id: str, consistency_token: str = "", with_shown: bool = False
    ) -> UserState:
        """The user's state, at least as new as the token says. Unknown users give `known=False`.

        `with_shown`: with what the user was shown, which costs more to keep.
        """
        ...


class Statistics(Protocol):
    """What all users together did in a catalogue: folds of the event log. Methods are fast (< 1 ms) and thread-safe."""

    def popular(self, catalog: str, now: float, limit: int) -> list[tuple[str, float]]:
        """Item ids by time-decayed popularity at `now` (Unix seconds), best first."""
        ...

    def transitions(self, catalog: str, weighted_items: Mapping[str, float], limit: int) -> list[tuple[str, float]]:
        """Items that followed the given ones, best first, with scores in (0, 1) that few users cannot bring near 1.

        `weighted_items` are query weights by item id.
        """
        ...

    def liked_by_neighbours(
        self, catalog: str, weighted_items: Mapping[str, float], user_key: int, limit: int
    ) -> list[tuple[str, float]]:
        """What the users liked who liked the given items too, best first; scores above 0 of any scale.

        `weighted_items` are query weights by item id, `user_key` is the user who is no neighbour of their own.
        """
        ...

    def users_of(self, catalog: str, item_ids: Sequence[str]) -> list[int]:
        """How many users acted on each item."""
        ...

    def event_sequence(self, catalog: str) -> int:
        """Sequence number of the last event folded in."""
        ...
