"""How much each source counts, by what is known of the user. The table of the recommendation's judgement, in one place.

Equal weights of z-scores never lost to the best single source on any of our data sets, fixed unequal ones did; so
sources that know the user count about the same, and those that do not only break ties once there is anything to know.
With a text, the text decides.
"""

from __future__ import annotations

from collections.abc import Mapping

from ranking_service.candidate import SourceKind
from ranking_service.taste import Taste

# What the other sources keep when the request says what it looks for.
_BESIDE_A_TEXT = 0.2
# Of what the followed like, for somebody with a history of their own. Not measured: no public set has both.
_FOLLOWED = 0.3
# A recent search of a user who now browses.
_RECENT_SEARCH = 0.6


def source_weights(taste: Taste) -> Mapping[SourceKind, float]:
    """Weight of each source's z-scores."""
    if not taste.is_personal:
        return {
            SourceKind.POPULAR: 1.0,
            SourceKind.FRESH: 0.3,
            SourceKind.CATALOG: 0.3,
            # Whom somebody follows is all that tells them from anybody.
            SourceKind.COMMUNITY: 1.0,
        }
    # From 0 without events towards 1: three events say as much as a profile.
    experience = len(taste.likes) / (len(taste.likes) + 3.0)
    weights = {
        # Whoever has done nothing is judged by what their like do: on two sets that found two to four times as much as
        # a profile alone. From the first like on it added nothing to what the house knows.
        SourceKind.COMMUNITY: 1.0 if not taste.likes else _FOLLOWED if taste.followed else 0.0,
        # What somebody says in this very request does not age with what they did before.
        SourceKind.PROFILE: 1.0 if taste.query.anonymous else 1.0 - 0.5 * experience,
        SourceKind.HISTORY: 0.35 + 0.65 * experience,
        SourceKind.TRANSITION: 0.35 + 0.65 * experience,
        SourceKind.POPULAR: 0.1 if taste.likes else 0.4,
        SourceKind.FRESH: 0.1,
    }
    if taste.query.text and taste.query_vector is not None:
        weights = {kind: weight * _BESIDE_A_TEXT for kind, weight in weights.items()}
        return {**weights, SourceKind.QUERY: 1.0}
    return {**weights, SourceKind.QUERY: _RECENT_SEARCH * taste.search_share}
