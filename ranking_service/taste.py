"""What the service knows about somebody at the moment of a request: the input of every source."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ranking_service.attribute_features.attribute_features import AttributeFeatures
from ranking_service.diversity.knob import HOUSE_KNOB, Knob
from ranking_service.intents.intent import NOTHING_UNDERSTOOD, Understood
from ranking_service.interests import Interest
from ranking_service.learned_sources.learned_sources import NOTHING_LEARNED, LearnedSources
from ranking_service.query import Query
from ranking_service.sequence_model import SequenceModel
from ranking_service.users.user_state import Interaction, UserState
from ranking_service.vector_cache import KnownItem, TextVector

# Older interactions than this many distinct liked items no longer shape a list; measured: the last 50 carry what
# matters.
_MAX_LIKES = 50
_MAX_DISLIKES = 20
# Items that an anonymous request or a shelf names.
_MAX_NAMED = 100
# Weight of an interaction by its place in the history and its age: what was done last says most about now.
_DECAY_PER_PLACE = 0.85
_HALF_LIFE_S = 30 * 86_400.0
# Net strength of repeated interactions with one item is held within this.
_MAX_STRENGTH = 3.0
# A search counts as what the user looks for for this long.
_SEARCH_LIFETIME_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Anchor:
    """An item that says something about the user's taste.

    Attributes:
        weight: Positive; how much it says. The heaviest of a taste is at most `_MAX_STRENGTH`.
        event_type: Of the strongest interaction, for the verb of the reason.
        time: Of the latest interaction.
    """

    item_id: str
    weight: float
    event_type: int
    time: float


@dataclass(frozen=True, slots=True)
class ScoutedItem:
    """What is known of an item of the catalogue at large. `created_at` is Unix seconds; `tie` orders equals."""

    id: str
    category: str
    created_at: float
    prior: float
    tie: int


@dataclass(frozen=True, slots=True)
class Taste:
    """One user understood.

    Attributes:
        likes: Distinct items acted on positively, latest first.
        dislikes: Distinct items acted on negatively, latest first.
        profile_text: From the stored profile or the anonymous description.
        search_text: The latest search of the history, when it is recent; empty when the request has a text.
        search_share: In [0, 1]: what time has left of that search.
        query_vector: Of the request's text, else of `search_text`; None without one, or when the encoder did not
            answer.
        profile_vector: Of the profile text; None likewise.
        interests: Groups of `likes`, heaviest first.
        known_items: Facts about likes and dislikes, as far as they are at hand.
        newest: Items created last, newest first; read only where there is no taste to search by.
        shelf: An even sample of what may be recommended; read only without a taste or for exploration.
        sequence: The sequence model of the bundle that the list is made with; None: it has none.
        followed: Items that those liked lately whom the user follows, best first, with weights.
        learned: What else that bundle brings for sources.
        understood: What the user is up to.
        attributes: What of items and of whoever asks that bundle's ranker reads; None: nothing that is not read anyway.
        knob: What the default diversity stands for, in the eyes of that bundle.
    """

    query: Query
    state: UserState
    likes: tuple[Anchor, ...] = ()
    dislikes: tuple[Anchor, ...] = ()
    profile_text: str = ""
    search_text: str = ""
    search_share: float = 0.0
    query_vector: TextVector | None = None
    profile_vector: TextVector | None = None
    interests: tuple[Interest, ...] = ()
    known_items: Mapping[str, KnownItem] = field(default_factory=dict)
    newest: Sequence[ScoutedItem] = ()
    shelf: Sequence[ScoutedItem] = ()
    sequence: SequenceModel | None = None
    followed: tuple[tuple[str, float], ...] = ()
    learned: LearnedSources = NOTHING_LEARNED
    understood: Understood = NOTHING_UNDERSTOOD
    attributes: AttributeFeatures | None = None
    knob: Knob = HOUSE_KNOB

    @property
    def is_personal(self) -> bool:
        """Whether anything is known that tells this user from nobody in particular."""
        return bool(self.likes or self.profile_vector or self.query_vector)


def first_impression(query: Query, state: UserState) -> Taste:
    """What can be said before any other service is asked."""
    if query.anonymous is not None:
        ids = dict.fromkeys(reversed(query.anonymous.recent_item_ids))
        named = [Anchor(item_id, _DECAY_PER_PLACE**place, 0, query.now) for place, item_id in enumerate(ids)]
        return Taste(query, state, tuple(named[:_MAX_NAMED]), profile_text=query.anonymous.text.strip())
    likes, dislikes = likes_and_dislikes(state.recent, query.now)
    search, share = ("", 0.0) if query.text else _latest_search(state.recent, query.now)
    return Taste(query, state, likes, dislikes, state.profile.strip(), search, share)


def likes_and_dislikes(recent: tuple[Interaction, ...], now: float) -> tuple[tuple[Anchor, ...], tuple[Anchor, ...]]:
    """Items by what a history, oldest first, says for and against them at a moment, each side latest first."""
    net: dict[str, float] = {}
    loudest: dict[str, Interaction] = {}
    latest: dict[str, float] = {}
    for interaction in reversed(recent):
        item_id, strength = interaction.item_id, interaction.strength
        if not item_id or strength == 0:
            continue
        if item_id not in net:
            net[item_id], latest[item_id], loudest[item_id] = strength, max(interaction.time, 0.0), interaction
            continue
        net[item_id] += strength
        latest[item_id] = max(latest[item_id], interaction.time)
        if abs(strength) > abs(loudest[item_id].strength):
            loudest[item_id] = interaction
    likes: list[Anchor] = []
    dislikes: list[Anchor] = []
    for item_id, strength in net.items():
        side, room = (likes, _MAX_LIKES) if strength > 0 else (dislikes, _MAX_DISLIKES)
        if strength == 0 or len(side) == room:
            continue
        age = max(now - latest[item_id], 0.0)
        weight = (
            min(abs(strength), _MAX_STRENGTH) * _DECAY_PER_PLACE ** len(side) * 0.5 ** min(age / _HALF_LIFE_S, 20.0)
        )
        side.append(Anchor(item_id, weight, loudest[item_id].event_type, latest[item_id]))
    return tuple(likes), tuple(dislikes)


def _latest_search(recent: tuple[Interaction, ...], now: float) -> tuple[str, float]:
    for interaction in reversed(recent):
        age = max(now - interaction.time, 0.0)
        if interaction.text.strip() and not interaction.item_id:
            return (interaction.text.strip(), 1.0 - age / _SEARCH_LIFETIME_S) if age < _SEARCH_LIFETIME_S else ("", 0.0)
    return "", 0.0
