"""Prometheus metrics of the log of served lists."""

from __future__ import annotations

from prometheus_client import Counter, Gauge

PAGES = Counter(
    "zhiyin_ranking_served_pages_total",
    "Served pages by what became of their record: written, dropped (the queue was full), failed (the store).",
    ["result"],
)
QUEUE_BYTES = Gauge("zhiyin_ranking_served_pages_queue_bytes", "Memory of served lists that wait to be written down.")
STORE_BYTES = Gauge("zhiyin_ranking_served_pages_store_bytes", "Bytes of served pages in the store.")
