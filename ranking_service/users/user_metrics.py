"""Metrics of the write side of ranking."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

EVENTS_RECORDED = Counter("zhiyin_ranking_events_recorded_total", "Events recorded.")
EVENTS_DUPLICATE = Counter("zhiyin_ranking_events_duplicate_total", "Events that were known already.")
EVENT_LAG = Histogram(
    "zhiyin_ranking_event_lag_seconds",
    "Age of the newest event of a request when it is acknowledged: durable, folded in, visible to reads.",
    buckets=(0.01, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 300, 900, 3600, 21_600, 86_400, 604_800),
)
USERS_ERASED = Counter("zhiyin_ranking_users_erased_total", "Users erased.")
USER_READS = Counter("zhiyin_ranking_user_reads_total", "Users read, by where the state came from.", ["source"])
WRITE_QUEUE_BYTES = Gauge("zhiyin_ranking_write_queue_bytes", "Bytes of requests that wait for the writer.")
STATISTICS_REFOLDS = Counter(
    "zhiyin_ranking_statistics_refolds_total",
    "Times statistics were folded from the whole log because the snapshot was missing, damaged or foreign.",
    ["snapshot"],
)
STATISTICS_SNAPSHOT_FAILURES = Counter(
    "zhiyin_ranking_statistics_snapshot_failures_total", "Times a snapshot of statistics could not be written."
)
STATISTICS_SNAPSHOT_SECONDS = Histogram(
    "zhiyin_ranking_statistics_snapshot_seconds", "Time to save the statistics of one catalogue."
)
