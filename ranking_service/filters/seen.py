"""The seen policy: what the user is done with does not come back, unless the request says otherwise."""

from __future__ import annotations

from collections.abc import Set

from ranking_service.taste import Taste


def seen(taste: Taste) -> Set[str]:
    """Ids that the policy drops.

    `include_seen` true: none. False: everything the user acted on lately or is done with. Unset: what the user is
    done with (the event-type table decides), and for an anonymous profile the items it names, since nobody wants to
    be shown what they just brought up.
    """
    query = taste.query
    if query.include_seen:
        return frozenset()
    if query.anonymous is not None:
        return frozenset(query.anonymous.recent_item_ids)
    if query.include_seen is None:
        return taste.state.seen
    return taste.state.seen | {interaction.item_id for interaction in taste.state.recent if interaction.item_id}
