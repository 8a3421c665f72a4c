"""A list made anew from what the log has of it, and held against what was served."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

from ranking_service import conversions
from ranking_service.bundles.serving_bundle import ServingBundle
from ranking_service.page import read_page
from ranking_service.page_token import read_page_token
from ranking_service.pipeline import Recommender
from ranking_service.rules.served_items import Served
from ranking_service.served_lists.kept_list import KeptList
from ranking_service.stages import Journal
from service_runtime.signed_token import TokenSigner
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

Pinned = Callable[[str, str], ServingBundle | None]
"""The bundle of a catalogue by its id; None: it cannot be loaded any more. Reads files."""


async def reproduction(
    recommender: Recommender, signer: TokenSigner, pinned: Pinned, kept: KeptList
) -> pb2.Reproduction:
    """Makes the page with the explained item again: same request, seed, moment and bundle.

    Raises:
        ZhiyinError: As a Recommend with this request would.
    """
    page, request = kept.page, kept.page.request
    query = replace(conversions.recommend_query(request), seed=page.seed, now=page.now)
    journal = Journal()
    bundle = await asyncio.to_thread(pinned, query.catalog, kept.bundle)
    after = Served(page.after, page.after_ids)
    slate = await recommender.make_list(query, journal, kept.record.list_id, after, bundle)
    places_read, served = 0, tuple(page.after)
    if request.page_token:
        token = read_page_token(signer, request)
        places_read, served = (0 if served and token.served == served else token.places), token.served
    size = conversions.page_size(request.page_size)
    made = await asyncio.to_thread(read_page, slate, size, places_read, served)
    item_ids = [slate.items[place.row].id for place in made.places]
    degraded, _ = conversions.journal_parts(journal)
    versions = conversions.versions_message(slate.versions)
    return pb2.Reproduction(
        identical=item_ids == [entry.item.id for entry in page.response.items],
        moved_on=_moved_on(page.response, versions, degraded),
        item_ids=item_ids,
        versions=versions,
    )


def _moved_on(then: pb2.RecommendResponse, now: pb2.ServingVersions, degraded: list[pb2.Degradation]) -> list[str]:
    differs = {
        "bundle": then.versions.bundle != now.bundle,
        "spaces": dict(then.versions.space_versions) != dict(now.space_versions),
        "catalog": then.versions.catalog_sequence != now.catalog_sequence,
        "events": then.versions.event_sequence != now.event_sequence,
        "degraded": {part.component for part in then.degraded} != {part.component for part in degraded},
    }
    return [what for what, moved in differs.items() if moved]
