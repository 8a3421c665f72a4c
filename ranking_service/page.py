"""One page of a slate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import islice

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
    for position, place in _places_from(slate, places_read, served, dropped):
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


def _places_from(
    slate: Slate, places_read: int, served: tuple[bytes, ...], dropped: Sequence[Set[str]]
) -> Iterator[tuple[int, Place]]:
    """The places after those read, with their positions.

    Where rules say something about places, what was served are the places so far: windows and shares reach back into
    earlier pages, and what was hidden meanwhile counts as if it had never been there.
    """
    if slate.rules is None or not served:
        return islice(enumerate(slate.places()), places_read, None)
    rows = {id_digest(item.id): row for row, item in enumerate(slate.items)}
    before = [rows.get(digest, -1) for digest in served]
    gone = {row for row, item in enumerate(slate.items) if any(item.id in ids for ids in dropped)}
    return enumerate(slate.places(before, gone), start=len(served))
