"""What this service counts, beyond what every server counts per RPC."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

WORKER_RESTARTS = Counter(
    "zhiyin_retrieval_worker_restarts_total", "Times the index worker died and was started again."
)
SNAPSHOT_SECONDS = Histogram(
    "zhiyin_retrieval_snapshot_duration_seconds",
    "Time one snapshot took, in its own process.",
    buckets=(0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1800),
)
SNAPSHOTS_DISCARDED = Counter(
    "zhiyin_retrieval_snapshots_discarded_total",
    "Snapshots that were damaged or of something else; the index was rebuilt from the store.",
)
SNAPSHOT_FAILURES = Counter("zhiyin_retrieval_snapshot_failures_total", "Snapshots that could not be made.")
QUEUED_WRITES = Gauge("zhiyin_retrieval_queued_writes", "Write requests that wait for the writer.")
QUEUED_BYTES = Gauge("zhiyin_retrieval_queued_bytes", "Bytes of write requests that wait for the writer.")
ITEMS_WRITTEN = Counter("zhiyin_retrieval_items_written_total", "Items written, by what became of them.", ["outcome"])
INFERRED = Counter(
    "zhiyin_retrieval_inferred_attributes_total", "Items written with an inferred attribute.", ["attribute"]
)
NOT_INFERRED = Counter(
    "zhiyin_retrieval_attributes_not_inferred_total",
    "Plans of writes without an attribute, since its name stands for values of another type in the catalogue.",
    ["attribute"],
)
SEARCHES = Counter("zhiyin_retrieval_queries_total", "Queries answered, by plan.", ["plan"])
SEARCH_SECONDS = Histogram(
    "zhiyin_retrieval_search_duration_seconds",
    "Time of a Search after its texts were encoded: filters, index, items.",
    buckets=(0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2),
)
