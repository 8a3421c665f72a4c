"""Reads users through the cache, as new as a consistency token asks."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from ranking_service.users import user_metrics
from ranking_service.users.catalogs import KnownCatalogs
from ranking_service.users.consistency import ConsistencyTokens
from ranking_service.users.impressions import KEPT_S
from ranking_service.users.store.store import UserStore
from ranking_service.users.store_wait import read_at
from ranking_service.users.user_cache import UserCache
from ranking_service.users.user_state import UserState


class CachedUserReader:
    """The `UserReader` of the service.

    Args:
        applied: Sequence up to which the cache reflects a catalogue's writes.
        max_recent: Interactions of a state.
        token_wait_s: Longest wait for a store that is behind a token.
    """

    def __init__(
        self,
        store: UserStore,
        cache: UserCache,
        catalogs: KnownCatalogs,
        tokens: ConsistencyTokens,
        applied: Callable[[str], int],
        max_recent: int,
        token_wait_s: float,
    ) -> None:
        self._store = store
        self._cache = cache
        self._catalogs = catalogs
        self._tokens = tokens
        self._applied = applied
        self._max_recent = max_recent
        self._token_wait_s = token_wait_s

    async def read(
        self, catalog: str, user_id: str, consistency_token: str = "", with_shown: bool = False
    ) -> UserState:
        """The user's state, at least as new as the token says. Unknown users give `known=False`.

        Impressions are read with the first list that a rule counts them for, and kept from then on.

        Raises:
            InvalidRequest, FailedPrecondition: See `ConsistencyTokens.sequence`.
            NotFound: The catalogue does not exist.
            StoreUnavailable: The store did not reach the token's sequence in time.
        """
        key = await self._catalogs.key(catalog)
        needed = self._tokens.sequence(catalog, consistency_token)
        if needed <= self._applied(catalog):
            state = self._cache.get(catalog, user_id)
            if state is not None and (state.shown is not None or not with_shown):
                user_metrics.USER_READS.labels("cache").inc()
                return state
        user_metrics.USER_READS.labels("store").inc()
        since = time.time() - KEPT_S if with_shown else None
        read = partial(self._store.read_state, key, user_id, self._max_recent, since)
        loaded, sequence = await read_at(needed, read, self._token_wait_s)
        self._cache.put(catalog, loaded, sequence)
        return loaded
