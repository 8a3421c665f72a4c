"""What it costs to write a served list down: on the event loop, in the log's thread, and in bytes."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from ranking_service import conversions
from ranking_service.page import Page
from ranking_service.selectors.slate import Slate
from ranking_service.served_lists.log_bounds import LogBounds
from ranking_service.served_lists.served_list_log import ServedListLog
from ranking_service.served_lists.served_list_store import served_list_store
from ranking_service.served_lists.served_page import ServedPage, record_of
from ranking_service.serving import Serving
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

_ROUNDS = 200


def cost_of_keeping(
    serving: Serving, slate: Slate, page: Page, entries: Sequence[pb2.RecommendedItem], folder: Path
) -> dict[str, float]:
    """Medians over some rounds for one page of a list; the CPU of a record is that of the log's thread."""
    query = slate.taste.query
    versions = conversions.versions_message(slate.versions)
    request = pb2.RecommendRequest(catalog=query.catalog, user_id=query.user_id)
    response = pb2.RecommendResponse(items=entries, versions=versions)
    served = ServedPage(slate, page, request, response, True, time.monotonic())
    store = served_list_store(folder, "")
    # Its thread is never started: what is measured here is the hand-over alone.
    log = ServedListLog(store, serving.lists.explained, LogBounds(queue_bytes=1 << 40))
    handing_over = [_cpu_ms(lambda: log.offer(served)) for _ in range(_ROUNDS)]
    making = [_cpu_ms(lambda: record_of(served, serving.lists.explained, 0)) for _ in range(_ROUNDS)]
    record = record_of(served, serving.lists.explained, 0)
    store.add([record])
    writing = [_cpu_ms(lambda: store.add([record] * 16)) / 16 for _ in range(_ROUNDS // 10)]
    store.close()
    return {
        "hand_over_cpu_ms_p50": round(statistics.median(handing_over), 4),
        "record_cpu_ms_p50": round(statistics.median(making), 3),
        "write_cpu_ms_p50_of_16_at_once": round(statistics.median(writing), 3),
        "bytes_a_page": len(record.payload),
    }


def _cpu_ms(run: Callable[[], object]) -> float:
    began = time.thread_time()
    run()
    return 1e3 * (time.thread_time() - began)
