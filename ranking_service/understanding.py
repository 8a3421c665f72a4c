"""Understands the user: reads the state, turns texts into vectors, groups the history into interests."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from google.protobuf.field_mask_pb2 import FieldMask

from ranking_service.attribute_features.item_facts import ItemFacts
from ranking_service.candidate import SourceKind
from ranking_service.catalog_scout import CatalogScout, newest_first
from ranking_service.clients import Encoder, Retrieval, matrix_rows
from ranking_service.followed import followed_likes
from ranking_service.intents.intent_reader import IntentReader
from ranking_service.interests import Interest, find_interests
from ranking_service.query import Query
from ranking_service.rules.caps import needs_impressions
from ranking_service.search_request import SPACE, attribute_paths, space_of
from ranking_service.stages import Journal
from ranking_service.taste import Taste, first_impression
from ranking_service.users.user_state import UserReader, UserState
from ranking_service.vector_cache import ItemCache, KnownItem
from service_runtime import request_context
from service_runtime.errors import DeadlineTooShort, InvalidRequest, NotFound, ZhiyinError
from zhiyin.retrieval.v1.retrieval_service_pb2 import SearchRequest

_MAX_INTERESTS = 4
# Longest wait for the scout's first look at a catalogue, and what the search after it needs.
_SCOUT_WAIT_S = 0.5
_RESERVE_S = 0.05


class Understanding:
    """Makes a `Taste` of a query. Everything but the user's state is optional: what fails is reported and left out."""

    def __init__(
        self,
        users: UserReader,
        encoder: Encoder,
        retrieval: Retrieval,
        items: ItemCache,
        scout: CatalogScout,
        intents: IntentReader | None = None,
    ) -> None:
        """`intents`: None where the deployment has no labels for them."""
        self._users, self._encoder, self._retrieval = users, encoder, retrieval
        self._items, self._scout, self._intents = items, scout, intents

    async def of(self, query: Query, journal: Journal, facts: ItemFacts | None = None) -> Taste:
        """The taste of whoever the query is for. A warm user costs no call to another service.

        `facts`: read of liked items what it says.
        """
        state = UserState(query.user_id)
        if query.user_id:
            shown = needs_impressions(query.rules)
            state = await self._users.read(query.catalog, query.user_id, query.consistency_token, shown)
        taste = first_impression(query, state)
        (taste, known), followed = await asyncio.gather(
            self._looked_up(taste, journal, facts), followed_likes(self._users, query, state)
        )
        taste = replace(taste, followed=followed)
        if known is not None:
            # An event on an item that does not exist (yet) says nothing about taste.
            known = {item_id: item for item_id, item in known.items() if item.exists}
            likes = tuple(anchor for anchor in taste.likes if anchor.item_id in known)
            dislikes = tuple(anchor for anchor in taste.dislikes if anchor.item_id in known)
            taste = replace(taste, likes=likes, dislikes=dislikes, known_items=known)
        if taste.likes:
            # Milliseconds for a hundred items.
            taste = replace(taste, interests=await asyncio.to_thread(_interests, taste))
        return await self._with_shelf(taste, journal)

    async def _looked_up(
        self, taste: Taste, journal: Journal, facts: ItemFacts | None
    ) -> tuple[Taste, dict[str, KnownItem] | None]:
        """The taste with what the encoder makes of its texts, and facts about its items; all at the same time."""
        if self._intents is None:
            return await asyncio.gather(self.with_vectors(taste, journal), self._known_items(taste, journal, facts))
        items = asyncio.ensure_future(self._known_items(taste, journal, facts))
        encoded, known, understood = await asyncio.gather(
            self.with_vectors(taste, journal), items, self._intents.read(taste, items, journal)
        )
        return replace(encoded, understood=understood, query=understood.asked(taste.query)), known

    async def with_vectors(self, taste: Taste, journal: Journal) -> Taste:
        """The taste with the vectors of its texts; without them, and a report, when the encoder cannot help."""
        query_text = taste.query.text or taste.search_text
        texts = [text for text in (query_text, taste.profile_text) if text.strip()]
        if not texts:
            return taste
        try:
            vectors = dict(zip(texts, await self._encoder.embed(texts), strict=True))
        except ZhiyinError as error:
            reason = "DEADLINE" if isinstance(error, DeadlineTooShort) else "UNAVAILABLE"
            journal.degrade("dependency:encoder", reason, error.message)
            for kind, text in ((SourceKind.QUERY, query_text), (SourceKind.PROFILE, taste.profile_text)):
                if text.strip():
                    journal.degrade(kind.component, reason, "the text could not be turned into a vector")
            return replace(taste, query_vector=None, profile_vector=None)
        return replace(taste, query_vector=vectors.get(query_text), profile_vector=vectors.get(taste.profile_text))

    async def _known_items(
        self, taste: Taste, journal: Journal, facts: ItemFacts | None
    ) -> dict[str, KnownItem] | None:
        """Facts about the items the user acted on, those not at hand read in one call; None: they cannot be read."""
        catalog = taste.query.catalog
        ids = [anchor.item_id for anchor in (*taste.likes, *taste.dislikes)]
        known = self._items.find(catalog, ids, facts.key if facts is not None else "")
        missing = [item_id for item_id in ids if item_id not in known]
        if not missing:
            return known
        try:
            request_context.current().deadline.require(2 * _RESERVE_S, "reading the user's items")
            return known | await self._read_items(catalog, missing, facts)
        except NotFound:
            raise
        except ZhiyinError as error:
            reason = "DEADLINE" if isinstance(error, DeadlineTooShort) else "UNAVAILABLE"
            journal.degrade("interests", reason, f"the history counts as one interest: {error.message}")
            return None

    async def _read_items(self, catalog: str, item_ids: Sequence[str], facts: ItemFacts | None) -> dict[str, KnownItem]:
        read = ["id", "title", "revision"]
        if facts is not None:
            read += ["categories", "language", *attribute_paths(facts.attributes)]
        request = SearchRequest(
            catalog=catalog,
            hydrate_item_ids=item_ids,
            read_mask=FieldMask(paths=read),
            vectors_space=SPACE,
            include_unavailable=True,
        )
        try:
            reply = await self._retrieval.search(request)
        except InvalidRequest:
            if facts is None:
                raise
            # Their attributes have outgrown a reply: what the items are like matters more.
            return await self._read_items(catalog, item_ids, None)
        space = space_of(reply)
        vectors = (
            matrix_rows(reply.item_vectors) if reply.item_vectors.rows else np.zeros((len(reply.items), 1), np.float32)
        )
        for item, vector in zip(reply.items, vectors, strict=True):
            told = (facts.row(item), facts.key) if facts is not None else (b"", "")
            self._items.remember(catalog, space, item.id, item.revision, item.title, vector, *told)
        for item_id in reply.missing_item_ids:
            self._items.remember_missing(catalog, space, item_id)
        return self._items.find(catalog, [item.id for item in reply.items])

    async def _with_shelf(self, taste: Taste, journal: Journal) -> Taste:
        """A look at the catalogue, where there is no taste to search by or something is to be tried out."""
        query = taste.query
        if taste.is_personal and query.exploration <= 0:
            return taste
        if query.filter is not None:
            matching = await self._scout.matching(query.catalog, query.filter)
            return replace(taste, shelf=matching, newest=newest_first(matching))
        wait = min(_SCOUT_WAIT_S, request_context.current().deadline.remaining() - _RESERVE_S)
        if not await self._scout.look(query.catalog, wait):
            for kind in (SourceKind.FRESH, SourceKind.CATALOG):
                journal.degrade(kind.component, "UNAVAILABLE", "the catalogue could not be looked through yet")
        return replace(taste, shelf=self._scout.sample(query.catalog), newest=self._scout.newest(query.catalog))


def _interests(taste: Taste) -> tuple[Interest, ...]:
    """Groups of likes, of which there are some; one group when nothing is known about the items."""
    dimensions = max((known.vector.shape[0] for known in taste.known_items.values()), default=1)
    vectors = np.zeros((len(taste.likes), dimensions), dtype=np.float32)
    for row, anchor in enumerate(taste.likes):
        known = taste.known_items.get(anchor.item_id)
        if known is not None and known.vector.shape[0] == dimensions:
            vectors[row] = known.vector
    return find_interests(vectors, [max(anchor.weight, 1e-9) for anchor in taste.likes], _MAX_INTERESTS)
