"""What this service measures beside the RPC metrics of the runtime."""

from __future__ import annotations

from prometheus_client import Counter, Gauge, Histogram

QUEUED_TOKENS = Gauge("zhiyin_encoder_queued_tokens", "Tokens that wait.", ["lane"])
QUEUED_INTERACTIVE, QUEUED_BULK = QUEUED_TOKENS.labels("interactive"), QUEUED_TOKENS.labels("bulk")
QUEUE_LIMIT = Gauge("zhiyin_encoder_queue_limit_tokens", "Tokens that may wait; beyond, calls are refused.")
BATCH_FILL = Histogram(
    "zhiyin_encoder_batch_fill_ratio",
    "Tokens of a batch, padding included, over those it may have.",
    buckets=(0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1),
)
BATCH_TEXTS = Histogram(
    "zhiyin_encoder_batch_size_texts", "Texts computed together.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
)
BATCH_SECONDS = Histogram(
    "zhiyin_encoder_batch_duration_seconds",
    "Time of one batch in the backend.",
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5),
)
TOKENS = Counter("zhiyin_encoder_computed_tokens_total", "Tokens computed, padding apart.", ["kind"])
TEXT_TOKENS, PADDING_TOKENS = TOKENS.labels("text"), TOKENS.labels("padding")
DROPPED = Counter("zhiyin_encoder_dropped_texts_total", "Texts dropped before any work was spent on them.", ["why"])
REFUSED = Counter("zhiyin_encoder_refused_requests_total", "Requests refused at admission.", ["why"])
FAILED_BATCHES = Counter("zhiyin_encoder_failed_batches_total", "Batches on which the backend raised.")
CACHE_LOOKUPS = Counter("zhiyin_encoder_cache_lookups_total", "Texts looked up in the cache.", ["result"])
CACHE_HITS, CACHE_MISSES = CACHE_LOOKUPS.labels("hit"), CACHE_LOOKUPS.labels("miss")
CACHE_BYTES = Gauge("zhiyin_encoder_cache_bytes", "Bytes held by the cache.")
