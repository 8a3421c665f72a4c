"""What a user was shown, bounded: times by item, newest first."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

# The longest period of a frequency cap.
KEPT_S = 30 * 86_400.0
# The most that a frequency cap counts.
_MAX_OF_AN_ITEM = 100
MAX_IN_ALL = 4_000

Impressions = Mapping[str, tuple[float, ...]]


def with_impressions(shown: Impressions, new: Iterable[tuple[str, float]]) -> Impressions:
    """The impressions with new ones, those left out that no cap counts any more.

    Args:
        shown: Times by item, newest first.
        new: Item and time of each, in any order.
    """
    latest = dict(shown)
    for item_id, time in new:
        times = latest.get(item_id, ())
        # Nearly always the newest: then this is one step.
        place = next((place for place, known in enumerate(times) if known <= time), len(times))
        latest[item_id] = (*times[:place], time, *times[place:])[:_MAX_OF_AN_ITEM]
    return _bounded(latest)


def _bounded(shown: dict[str, tuple[float, ...]]) -> Impressions:
    newest = max((times[0] for times in shown.values()), default=0.0)
    oldest = newest - KEPT_S
    if sum(map(len, shown.values())) > MAX_IN_ALL:
        every = sorted((time for times in shown.values() for time in times), reverse=True)
        oldest = max(oldest, every[MAX_IN_ALL])
    if all(times[-1] > oldest for times in shown.values()):
        return shown
    kept = {item_id: tuple(time for time in times if time > oldest) for item_id, times in shown.items()}
    return {item_id: times for item_id, times in kept.items() if times}
