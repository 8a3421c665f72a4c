"""One page of a slate."""

from __future__ import annotations

from collections.abc import Sequence, Set
from dataclasses import dataclass

from ranking_service.page_token import id_digest
from ranking_service.selectors.exploration_slots import Place
from ranking_service.selectors.slate import Slate


@dataclass(frozen=True, slots=True)
class Page:
    """Places to serve.

    Attributes:
        places: In their order.
        first_rank: Rank of the first, from 1.
        places_read: Where the next page starts in the slate.
        served: Digests of all ids served so far, this page included.
        has_more: Whether a next page would have anything.
    """

    places: Sequence[Place]
    first_rank: int
    places_read: int
    served: tuple[bytes, ...]
    has_more: bool


def read_page(
    slate: Slate, size: int, places_read: int = 0, served: tuple[bytes, ...] = (), dropped: Sequence[Set[str]] = ()
) -> Page:
    """Reads on in a slate.

    Args:
        slate: The list.
        size: Places wanted.
        places_read: Places of earlier pages, as the slate counts them; 0 for a slate that was made anew.
        served: Digests of ids that were served and do not come again.
        dropped: Ids that since the slate was made must not be shown, such as items hidden between two pages.
    """
    gone = set(served)
    room = slate.max_length - len(served)
    found: list[Place] = []
    digests: list[bytes] = []
    end = places_read
    for position, place in enumerate(slate.places()):
        if position < places_read:
            continue
        item_id = slate.items[place.row].id
        digest = id_digest(item_id)
        if digest in gone or any(item_id in ids for ids in dropped):
            continue
        if len(found) == min(size, room):
            return Page(found, len(served) + 1, end, served + tuple(digests), has_more=len(found) < room)
        found.append(place)
        digests.append(digest)
        end = position + 1
    return Page(found, len(served) + 1, end, served + tuple(digests), has_more=False)
