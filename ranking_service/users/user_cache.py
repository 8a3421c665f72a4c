"""User states in memory: changed by every write, bounded, and never older than what was acknowledged."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import replace

from ranking_service.users.impressions import with_impressions
from ranking_service.users.user import Change, UserChange
from ranking_service.users.user_state import Interaction, UserState

_WEIGHT_OF_A_USER = 16
# Letters of a profile that take about the memory of an interaction.
_LETTERS_OF_AN_INTERACTION = 100
_REMEMBERED_CHANGES = 20_000


class UserCache:
    """The most recently used states.

    A state that was read from the store while a write was committed may lack that write. So the cache remembers the
    sequence of the latest changes by user, and refuses a state that was read before its user's last change.

    Args:
        max_interactions: Bound of the interactions, seen items, impressions and follows of all states together; a
            profile counts as an interaction for every hundred letters.
        max_recent: Interactions kept of one user.
    """

    def __init__(self, max_interactions: int, max_recent: int) -> None:
        self._max_interactions = max_interactions
        self._max_recent = max_recent
        self._lock = threading.Lock()
        self._states: OrderedDict[tuple[str, str], UserState] = OrderedDict()
        self._weight = 0
        self._changed: OrderedDict[tuple[str, str], int] = OrderedDict()
        # Changes up to this sequence are forgotten, by catalogue.
        self._forgotten: dict[str, int] = {}

    @property
    def weight(self) -> int:
        """Interactions and seen items held, with an allowance for each user."""
        return self._weight

    def get(self, catalog: str, user_id: str) -> UserState | None:
        """The state, when it is here."""
        with self._lock:
            state = self._states.get((catalog, user_id))
            if state is not None:
                self._states.move_to_end((catalog, user_id))
            return state

    def put(self, catalog: str, state: UserState, sequence: int) -> None:
        """Takes a state in that was read from the store at a sequence, unless its user has changed since."""
        key = (catalog, state.user_id)
        with self._lock:
            if max(self._changed.get(key, 0), self._forgotten.get(catalog, 0)) <= sequence:
                self._store(key, state)

    def apply(self, change: Change) -> None:
        """Takes a committed write into account. Changes of a catalogue come in the order of their sequences."""
        with self._lock:
            for user in change.users:
                self._note_change((change.catalog, user.user_id), change.after)
                self._change(change.catalog, user)

    def drop(self, catalog: str, user_ids: Sequence[str], erased_keys: Sequence[int], sequence: int) -> None:
        """Forgets states that another replica changed or erased, at the latest at this sequence."""
        with self._lock:
            if erased_keys:
                # Whose they were is known of those in the cache only, and a read from before may be on its way here.
                self._forgotten[catalog] = max(self._forgotten.get(catalog, 0), sequence)
            gone = set(erased_keys)
            erased = [key[1] for key, state in self._states.items() if gone and state.key in gone]
            for user_id in (*user_ids, *erased):
                self._note_change((catalog, user_id), sequence)
                self._discard((catalog, user_id))

    def _change(self, catalog: str, user: UserChange) -> None:
        key = (catalog, user.user_id)
        state = self._states.get(key)
        if state is None:
            return
        if user.reread or (state.version < user.version_after and state.version != user.version_before):
            self._discard(key)
        elif state.version == user.version_before:
            self._store(key, changed(state, user, self._max_recent))

    def _note_change(self, key: tuple[str, str], sequence: int) -> None:
        # The tail and the writer may come here in either order.
        self._changed[key] = max(self._changed.get(key, 0), sequence)
        self._changed.move_to_end(key)
        if len(self._changed) > _REMEMBERED_CHANGES:
            (catalog, _), forgotten = self._changed.popitem(last=False)
            self._forgotten[catalog] = max(self._forgotten.get(catalog, 0), forgotten)

    def _store(self, key: tuple[str, str], state: UserState) -> None:
        self._discard(key)
        self._states[key] = state
        self._weight += _weight(state)
        while self._weight > self._max_interactions and len(self._states) > 1:
            self._discard(next(iter(self._states)))

    def _discard(self, key: tuple[str, str]) -> None:
        state = self._states.pop(key, None)
        if state is not None:
            self._weight -= _weight(state)


def changed(state: UserState, change: UserChange, max_recent: int) -> UserState:
    """The state after a change: what the store would give, without asking it."""
    profile = change.profile
    return replace(
        state,
        known=True,
        key=change.user_key,
        version=change.version_after,
        profile=state.profile if profile is None else profile.text,
        attributes=state.attributes if profile is None else profile.attributes,
        follows=state.follows if profile is None else profile.follows,
        recent=_latest(state.recent, change.interactions, max_recent),
        seen=state.seen | change.seen if change.seen else state.seen,
        hidden=state.hidden | change.hidden if change.hidden else state.hidden,
        shown=with_impressions(state.shown, change.shown) if change.shown and state.shown is not None else state.shown,
    )


def _latest(known: tuple[Interaction, ...], new: tuple[Interaction, ...], max_recent: int) -> tuple[Interaction, ...]:
    if not new:
        return known
    # Nearly sorted, which Python's sort does in linear time.
    return tuple(sorted(known + new, key=lambda event: (event.time, event.sequence))[-max_recent:])


def _weight(state: UserState) -> int:
    words = len(state.profile) // _LETTERS_OF_AN_INTERACTION + len(state.follows)
    shown = sum(map(len, state.shown.values())) if state.shown else 0
    return _WEIGHT_OF_A_USER + len(state.recent) + len(state.seen) + shown + words
