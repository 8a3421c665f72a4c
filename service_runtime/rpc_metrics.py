"""What is counted of every call. Methods are those of the contract, so their number is small."""

from __future__ import annotations

import functools

from prometheus_client import Counter, Gauge, Histogram

RPC_HANDLED = Counter("zhiyin_rpc_handled_total", "Calls answered, by gRPC status code.", ["method", "code"])
RPC_ERRORS = Counter(
    "zhiyin_rpc_errors_total", "Calls that failed, by the reason in their status.", ["method", "reason"]
)
RPC_SECONDS = Histogram(
    "zhiyin_rpc_duration_seconds",
    "Time from the first message to the status of a call.",
    ["method"],
    buckets=(0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30),
)
RPC_IN_FLIGHT = Gauge("zhiyin_rpc_in_flight", "Calls being served.", ["method"])


class MethodMetrics:
    """The metrics of one method, looked up once and not with every call.

    Attributes:
        in_flight: Calls being served.
        seconds: Their durations.
    """

    def __init__(self, method: str) -> None:
        self._method = method
        self._handled: dict[str, Counter] = {}
        self.in_flight = RPC_IN_FLIGHT.labels(method)
        self.seconds = RPC_SECONDS.labels(method)

    def handled(self, code: str) -> None:
        """A call ended with a gRPC status code."""
        counter = self._handled.get(code)
        if counter is None:
            counter = self._handled[code] = RPC_HANDLED.labels(self._method, code)
        counter.inc()

    def failed(self, reason: str) -> None:
        """A call failed for a reason of docs/errors.md."""
        RPC_ERRORS.labels(self._method, reason).inc()


@functools.cache
def metrics_of(method: str) -> MethodMetrics:
    """The metrics of a method, by its full name such as `/zhiyin.ranking.v1.RankingService/Recommend`."""
    return MethodMetrics(method)
