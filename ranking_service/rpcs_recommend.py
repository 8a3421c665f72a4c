"""Recommend, SimilarItems and Rerank."""

from __future__ import annotations

import time
from dataclasses import replace

import grpc

from ranking_service import conversions, metrics
from ranking_service.page import Page
from ranking_service.page_token import PageToken, read_page_token, write_page_token
from ranking_service.selectors.slate import Slate
from ranking_service.served_lists.served_list_log import ServedListLog
from ranking_service.served_lists.served_page import ServedPage
from ranking_service.serving import Serving
from ranking_service.shelf import shelf_query
from ranking_service.stages import Journal
from ranking_service.users.user_side import UserSide
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2


class RecommendRpcs:
    """The RPCs that answer with a list."""

    serving: Serving
    user_side: UserSide
    served_lists: ServedListLog

    async def Recommend(
        self,
        request: pb2.RecommendRequest,
        context: grpc.aio.ServicerContext[pb2.RecommendRequest, pb2.RecommendResponse],
    ) -> pb2.RecommendResponse:
        """A list, or more of one."""
        began = time.monotonic()
        query, size = conversions.recommend_query(request), conversions.page_size(request.page_size)
        lists, journal = self.serving.lists, Journal()
        if request.consistency_token:
            await self.user_side.rules.reach(request.catalog, request.consistency_token)
        collapsing: tuple[str, ...] = ()
        if request.page_token:
            token = read_page_token(self.serving.signer, request)
            collapsing = token.collapsing
            query = replace(query, seed=token.seed, now=token.now)
            slate, page = await lists.next_page(query, token, size, journal)
        else:
            await self.user_side.require_catalog(request.catalog)
            slate, page = await lists.first_page(query, size, journal)
        fields = conversions.mask_fields(request.item_mask)
        explain = request.explain if request.HasField("explain") else True
        items = await lists.entries(slate, page, fields, explain, journal)
        degraded, timings = conversions.journal_parts(journal)
        response = pb2.RecommendResponse(
            items=items,
            next_page_token=self._next_page_token(request, slate, page, collapsing),
            degraded=degraded,
            stage_timings=timings,
            versions=conversions.versions_message(slate.versions),
            intents=conversions.intent_messages(slate.taste.understood),
            consistency_token=self.user_side.consistency_token(request.catalog),
        )
        self.served_lists.offer(ServedPage(slate, page, request, response, explain, began))
        metrics.count_list("Recommend", bool(journal.degraded))
        return response

    async def SimilarItems(
        self,
        request: pb2.SimilarItemsRequest,
        context: grpc.aio.ServicerContext[pb2.SimilarItemsRequest, pb2.SimilarItemsResponse],
    ) -> pb2.SimilarItemsResponse:
        """A shelf."""
        began = time.monotonic()
        query, item_ids = conversions.shelf_request(request)
        await self.user_side.require_catalog(request.catalog)
        journal, shelves = Journal(), self.serving.shelves
        size = conversions.page_size(request.page_size)
        slate, page = await shelves.first_page(shelf_query(query, item_ids), size, journal, keep=False)
        items = await shelves.entries(slate, page, conversions.mask_fields(request.item_mask), True, journal)
        degraded, timings = conversions.journal_parts(journal)
        response = pb2.SimilarItemsResponse(
            items=items,
            degraded=degraded,
            stage_timings=timings,
            versions=conversions.versions_message(slate.versions),
        )
        self.served_lists.offer(ServedPage(slate, page, None, response, True, began))
        metrics.count_list("SimilarItems", bool(journal.degraded))
        return response

    async def Rerank(
        self, request: pb2.RerankRequest, context: grpc.aio.ServicerContext[pb2.RerankRequest, pb2.RerankResponse]
    ) -> pb2.RerankResponse:
        """The caller's candidates in a better order."""
        query, candidates, personalization, places = conversions.rerank_request(request)
        journal = Journal()
        reranked = await self.serving.reranker.rerank(query, candidates, personalization, places, journal)
        degraded, timings = conversions.journal_parts(journal)
        metrics.count_list("Rerank", bool(journal.degraded))
        return pb2.RerankResponse(
            items=[
                pb2.RerankedItem(
                    item_id=candidates.ids[row], rank=rank, score=float(reranked.scores[row]), candidate_index=row
                )
                for rank, row in enumerate(reranked.rows, start=1)
            ],
            degraded=degraded,
            stage_timings=timings,
        )

    def _next_page_token(
        self, request: pb2.RecommendRequest, slate: Slate, page: Page, collapsing: tuple[str, ...]
    ) -> str:
        """`collapsing`: of the pages before, ids of items that a COLLAPSE rule was about."""
        if not page.has_more:
            return ""
        query = slate.taste.query
        collapsing += tuple(slate.items[place.row].id for place in page.places if place.row in slate.collapsing)
        token = PageToken(slate.list_id, query.seed, query.now, page.places_read, page.served, collapsing)
        return write_page_token(self.serving.signer, request, token)
