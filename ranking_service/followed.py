"""What those liked lately whom a user follows."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from ranking_service.query import Query
from ranking_service.taste import likes_and_dislikes
from ranking_service.users.user_state import UserReader, UserState
from service_runtime import request_context

# The latest of those a user follows; most are in the user cache.
_MOST_FOLLOWED = 50
_LIKES_OF_EACH = 20
_MOST_ITEMS = 200
# Whoever has not been read by then is left out of this list, and is in the cache for the next one if it came in time.
_WAIT_S = 0.05


async def followed_likes(users: UserReader, query: Query, state: UserState) -> tuple[tuple[str, float], ...]:
    """Items liked by the followed, those of most and latest likes first, with the sum of the likes' weights.

    Nobody is named: what comes out are items. Users who cannot be read are left out.
    """
    follows = [user_id for user_id in state.follows[-_MOST_FOLLOWED:] if user_id != state.user_id]
    if not follows:
        return ()
    reads = [asyncio.ensure_future(users.read(query.catalog, user_id)) for user_id in follows]
    wait = min(_WAIT_S, max(request_context.current().deadline.remaining() / 4, 0.0))
    done, late = await asyncio.wait(reads, timeout=wait)
    for read in late:
        read.cancel()
    weights: dict[str, float] = defaultdict(float)
    for read in reads:
        if read in done and not read.cancelled() and read.exception() is None:
            likes, _ = likes_and_dislikes(read.result().recent, query.now)
            for anchor in likes[:_LIKES_OF_EACH]:
                weights[anchor.item_id] += anchor.weight
    ordered = sorted(weights.items(), key=lambda pair: (-pair[1], pair[0]))
    return tuple(pair for pair in ordered[:_MOST_ITEMS] if pair[1] > 0.0)
