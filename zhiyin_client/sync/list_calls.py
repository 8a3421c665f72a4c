"""Calls that make lists: ranking."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Unpack

from numpy.typing import ArrayLike

from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin_client import methods
from zhiyin_client.lists import (
    Diversity,
    RecommendOptions,
    ShelfOptions,
    recommend_request,
    rerank_request,
    similar_items_request,
)
from zhiyin_client.sync.calls import Calls


class ListCalls(Calls):
    """Recommendations. All raise ZhiyinError."""

    def recommend(
        self, user_id: str | None = None, *, page_token: str = "", **options: Unpack[RecommendOptions]
    ) -> ranking.RecommendResponse:
        """A page of a ranked, diverse, explained list: for a user, an anonymous profile, or nobody in particular.

        `page_token`, of the page before, asks for more of the same list; the options must then be the same.
        """
        request = recommend_request(self.catalog, user_id, options, page_token)
        return self._call(methods.RECOMMEND, request, options.get("timeout"))

    def recommend_all(
        self, user_id: str | None = None, *, limit: int | None = None, **options: Unpack[RecommendOptions]
    ) -> Iterator[ranking.RecommendedItem]:
        """The whole list, or its first `limit` items; pages are fetched as they are needed."""
        token, given = "", 0
        while limit is None or given < limit:
            page = self.recommend(user_id, page_token=token, **options)
            for entry in page.items[: None if limit is None else limit - given]:
                given += 1
                yield entry
            token = page.next_page_token
            if not token:
                return

    def similar_items(
        self, item_ids: str | Iterable[str], *, locale: str = "", **options: Unpack[ShelfOptions]
    ) -> ranking.SimilarItemsResponse:
        """Items like the given ones, for a "more like this" shelf. NotFound when all are unknown."""
        ids = [item_ids] if isinstance(item_ids, str) else item_ids
        request = similar_items_request(self.catalog, ids, locale, options)
        return self._call(methods.SIMILAR_ITEMS, request, options.get("timeout"))

    def rerank(
        self,
        candidates: Mapping[str, float] | Iterable[tuple[str, float]],
        vectors: ArrayLike | None = None,
        *,
        user_id: str | None = None,
        personalization: float | None = None,
        page_size: int = 0,
        diversity: float | None = None,
        diversity_method: Diversity = "msd",
        timeout: float | None = None,
    ) -> ranking.RerankResponse:
        """Scores and diversifies candidates of a system of the caller's own.

        Args:
            candidates: Ids with scores, higher is better; 1 to 1,000.
            vectors: Shape (candidates, dimensions); None: those of the catalogue.
            user_id: Blend the scores with what is known of this user.
            personalization: How much, in [0,1].
            page_size: Items wanted; 0: all.
            diversity: 0: by score; 1: the most varied list.
            diversity_method: How to diversify.
            timeout: Seconds; None: the client's.

        Raises:
            ValueError: There are not as many vectors as candidates.
        """
        request = rerank_request(
            self.catalog,
            candidates,
            vectors,
            user_id=user_id,
            personalization=personalization,
            page_size=page_size,
            diversity=diversity,
            diversity_method=diversity_method,
        )
        return self._call(methods.RERANK, request, timeout)

    def explain(
        self, attribution_token: str, *, reproduce: bool = False, timeout: float | None = None
    ) -> ranking.ExplainResponse:
        """Why an item stood where it stood; `reproduce`: the list is also made anew. NotFound when it is not kept."""
        request = ranking.ExplainRequest(catalog=self.catalog, attribution_token=attribution_token, reproduce=reproduce)
        return self._call(methods.EXPLAIN, request, timeout)
