"""Prometheus metrics of the recommendation."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

STAGE_SECONDS = Histogram(
    "zhiyin_ranking_stage_duration_seconds",
    "Time of one stage of a list.",
    ["stage"],
    buckets=(0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
LISTS = Counter(
    "zhiyin_ranking_lists_total", "Lists answered with, by whether a part was missing.", ["method", "degraded"]
)
DEGRADED = Counter("zhiyin_ranking_degraded_total", "Lists made without a part.", ["component", "reason"])
CANDIDATES = Histogram(
    "zhiyin_ranking_candidates_count",
    "Candidates of a list after the merge.",
    buckets=(0, 1, 3, 10, 30, 100, 200, 300, 400, 600, 1000, 2000),
)
SOURCE_CANDIDATES = Counter("zhiyin_ranking_source_candidates_total", "Candidates proposed, by source.", ["source"])
SERVED = Counter("zhiyin_ranking_served_items_total", "Items in lists, by the source of their reason.", ["source"])
VARIETY = Histogram(
    "zhiyin_ranking_list_variety",
    "Mean of 1 - cosine over the pairs of a page's items, by the vectors of their texts.",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1, 1.2),
)
INTENTS = Counter(
    "zhiyin_ranking_intents_total", "Words held against the labels of the intents file, by what they were.", ["intent"]
)
CACHE_LOOKUPS = Counter("zhiyin_ranking_cache_lookups_total", "Look-ups in the caches.", ["cache", "result"])
LIST_STORE_BYTES = Gauge("zhiyin_ranking_list_store_bytes", "Memory of lists kept for their next pages.")
LISTS_REBUILT = Counter("zhiyin_ranking_lists_rebuilt_total", "Next pages made anew because their list was gone.")


def count_list(method: str, degraded: bool) -> None:
    """Counts a list that is answered with; `method` as Recommend, SimilarItems, Rerank."""
    _LISTS_OF[method, degraded].inc()


_LISTS_OF = {
    (method, degraded): LISTS.labels(method, str(degraded).lower())
    for method in ("Recommend", "SimilarItems", "Rerank")
    for degraded in (False, True)
}
