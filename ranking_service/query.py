"""What is asked of the recommendation, checked and with defaults filled in."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

from ranking_service.rules.rule import Rule
from service_runtime.attributes import AttributeScalar
from zhiyin.common.v1.filter_pb2 import Filter

DEFAULT_DIVERSITY = 0.3


class DiversityMethod(enum.Enum):
    """How a list is made diverse."""

    MSD = "msd"
    MMR = "mmr"
    DPP = "dpp"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Anonymous:
    """Somebody described in the request; nothing of it is stored."""

    text: str = ""
    recent_item_ids: tuple[str, ...] = ()
    attributes: Mapping[str, AttributeScalar] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Query:
    """A Recommend request.

    Attributes:
        user_id: Empty unless the request names a user.
        anonymous: Set when the request describes somebody instead.
        device: Circumstances of the request, as `locale`; empty: not told. Only a learned ranker reads it and `place`.
        filter: Passed on to retrieval; None matches everything.
        diversity: In [0, 1], higher is more diverse.
        exploration: Share of places in [0, 1].
        include_seen: None: as the policy says.
        now: Unix seconds of the moment the list is for.
        seed: Pins everything random in the list.
        reads_intents: Whether what the user is up to moves the list, where the deployment has labels for it.
        left_open: Of `diversity` and `exploration` those that the request does not set.
        rules: Of the catalogue, in force at `now`; looked up when the list is made.
    """

    catalog: str
    user_id: str = ""
    anonymous: Anonymous | None = None
    text: str = ""
    locale: str = ""
    device: str = ""
    place: str = ""
    filter: Filter | None = None
    excluded: frozenset[str] = frozenset()
    diversity: float = DEFAULT_DIVERSITY
    method: DiversityMethod = DiversityMethod.MSD
    exploration: float = 0.0
    include_seen: bool | None = None
    consistency_token: str = ""
    variant: str = ""
    now: float = 0.0
    seed: int = 0
    reads_intents: bool = False
    left_open: frozenset[str] = frozenset()
    rules: tuple[Rule, ...] = ()
