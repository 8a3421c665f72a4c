"""The write side of ranking as one object: users, events and what all users together did."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

from ranking_service.user_state import Statistics, UserReader
from service_runtime.signed_token import TokenSigner

CatalogLookup = Callable[[str], Awaitable[bool]]
"""Whether the retrieval service knows a catalogue. Asked only for names that the user store has never heard of."""


@dataclass(frozen=True, slots=True)
class UserSideSettings:
    """What can be set about users, events and statistics. The defaults are the shipped ones.

    Attributes:
        store_url: SQLAlchemy URL of the user store; empty: a SQLite file in the data directory.
        max_events_per_batch: Events in one request or stream batch, at least 1.
        max_users_per_batch: Users in one request, at least 1.
        max_queued_bytes: Bytes of requests that may wait for the writer; beyond it calls are refused with a retry hint.
        max_recent_interactions: Interactions of a user that the recommendation sees, latest first to be kept; 1 to 10,000.
        user_cache_interactions: Bound of the user cache, counted in interactions and seen items of all cached users.
        popularity_half_life_s: Seconds after which an event counts half.
        snapshot_every_events: Events folded in after which the statistics are saved; a restart replays at most about so many.
        tail_interval_s: Seconds between looks for events that other replicas recorded; 0: never (one replica).
        token_wait_s: Longest wait for the store of a replica to reach a consistency token, in seconds.
    """

    store_url: str = ""
    max_events_per_batch: int = 1_000
    max_users_per_batch: int = 1_000
    max_queued_bytes: int = 64 << 20
    max_recent_interactions: int = 200
    user_cache_interactions: int = 500_000
    popularity_half_life_s: float = 30 * 86_400.0
    snapshot_every_events: int = 50_000
    tail_interval_s: float = 0.0
    token_wait_s: float = 2.0


class UserSide:
    """Everything behind RecordEvents and the user RPCs.

    Attributes:
        reader: Reads users, for the recommendation.
        statistics: Popularity and transitions, for the recommendation.

    Attribution tokens are signed by the recommendation with kind `attribution`; RecordEvents reads three keys of the
    payload and leaves the others alone: `c` the catalogue, `i` the item id, `l` the id of the list.
    """

    reader: UserReader
    statistics: Statistics

    @classmethod
    def open(
        cls, data_dir: Path, settings: UserSideSettings, signer: TokenSigner, catalog_lookup: CatalogLookup
    ) -> UserSide:
        """Puts the parts together; touches no disk yet."""
        raise NotImplementedError

    async def start(self) -> None:
        """Opens the store, loads the statistics (snapshot, then newer events) and starts the writer."""

    async def close(self) -> None:
        """Finishes what waits, saves the statistics and closes the store."""

    def readiness(self) -> str | None:
        """Why users and events cannot be served; None: they can."""
        raise NotImplementedError

    async def catalog_exists(self, catalog: str) -> bool:
        """Whether a catalogue is known here, or to retrieval (asked only the first time)."""
        raise NotImplementedError

    def consistency_token(self, catalog: str) -> str:
        """A token for everything this replica has seen of a catalogue."""
        raise NotImplementedError
