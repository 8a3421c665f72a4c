"""Impressions of a user, read when a rule counts them.

The index on a user's events by time finds the last days; a read of the user's state looks at all of the events
anyway, so an index of their own would make every write dearer and no list faster.
"""

from __future__ import annotations

from sqlalchemy import Connection, select

from ranking_service.users.impressions import MAX_IN_ALL, Impressions, with_impressions
from ranking_service.users.store.schema import events
from zhiyin.ranking.v1 import ranking_service_pb2 as pb


def load_impressions(connection: Connection, user_key: int, since: float) -> Impressions:
    """What the user was shown after a moment, Unix seconds: times by item, newest first, bounded."""
    query = (
        select(events.c.item_id, events.c.time_us)
        .where(
            events.c.user_key == user_key,
            events.c.time_us > int(since * 1e6),
            events.c.event_type == pb.EVENT_TYPE_IMPRESSION,
        )
        .order_by(events.c.time_us.desc(), events.c.sequence.desc())
        .limit(MAX_IN_ALL)
    )
    rows = connection.execute(query).all()
    return with_impressions({}, [(item_id, time_us / 1e6) for item_id, time_us in reversed(rows)])
