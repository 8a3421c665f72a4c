"""A list as the log has it: its pages put together, and the place that a token is about."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ranking_service.attribution import ListMark, attribution_token
from ranking_service.served_lists.page_record import PageContent, PageRecord, unpack
from service_runtime.signed_token import TokenSigner
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2


@dataclass(frozen=True, slots=True)
class KeptList:
    """A served list and one of its places.

    Attributes:
        record: The page with the place.
        page: Its content.
        place: Of the item in that page, from 0.
        entries: Of all pages that were served, in the order of their ranks, with the tokens that they had.
    """

    record: PageRecord
    page: PageContent
    place: int
    entries: Sequence[pb2.RecommendedItem]

    @property
    def item_id(self) -> str:
        """The item that the token is about."""
        return self.page.response.items[self.place].item.id

    @property
    def bundle(self) -> str:
        """The model bundle that made the page."""
        return self.page.response.versions.bundle


def kept_list(records: Sequence[PageRecord], item_id: str, rank: int, signer: TokenSigner) -> KeptList | None:
    """The list of some pages; None: the item does not stand at that rank in any of them.

    A page may have been served twice, by a repeated request, and differ where the list was made anew in between. The
    last one that has the item counts, and of the others the last of each rank.
    """
    pages = [(record, unpack(record.payload)) for record in records]
    for record, page in reversed(pages):
        place = rank - record.first_rank
        if 0 <= place < len(page.response.items) and page.response.items[place].item.id == item_id:
            by_rank = {entry.rank: entry for each in [*pages, (record, page)] for entry in _entries(*each, signer)}
            return KeptList(record, page, place, [by_rank[rank] for rank in sorted(by_rank)])
    return None


def as_served(kept: KeptList) -> pb2.ExplainResponse:
    """What was written down."""
    page, record = kept.page, kept.record
    response = pb2.ExplainResponse()
    response.CopyFrom(page.places[kept.place])
    response.item.CopyFrom(next(entry for entry in kept.entries if entry.rank == record.first_rank + kept.place))
    response.list.extend(kept.entries)
    response.versions.CopyFrom(page.response.versions)
    response.served_at.FromMicroseconds(record.time_us)
    response.time.FromMicroseconds(round(page.now * 1e6))
    response.seed = page.seed
    response.experiment_variant = page.request.experiment_variant
    response.degraded.extend(page.response.degraded)
    response.intents.extend(page.response.intents)
    response.list_id = record.list_id
    return response


def _entries(record: PageRecord, page: PageContent, signer: TokenSigner) -> Iterator[pb2.RecommendedItem]:
    """The places of a page. Their tokens are made of what they were made of then, so they are the same."""
    variant, bundle = page.request.experiment_variant, page.response.versions.bundle
    mark = ListMark(record.list_id, record.catalog, bundle, page.seed, variant, page.now)
    for kept, facts in zip(page.response.items, page.places, strict=True):
        entry = pb2.RecommendedItem()
        entry.CopyFrom(kept)
        entry.attribution_token = attribution_token(signer, mark, kept.item.id, kept.rank, facts.propensity)
        yield entry
