"""Channels to other services: keepalive, retries by service config, the request id passed on, errors translated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import grpc

from service_runtime import request_context
from service_runtime.errors import DeadlineTooShort, DependencyUnavailable, Overloaded, ZhiyinError
from service_runtime.security import channel_credentials

R = TypeVar("R")
# With the pauses of a client that retries as told, five attempts bridge 4 s.
_RETRY_AFTER_S = 1.0

# Between our services (clients have another config, zhiyin_client/service_config.json): a connection that broke is
# tried again at once, but a neighbour that is down is reported within a fifth of a second, because the caller has
# something better to do (a list without it, or a retry of its own).
_NEIGHBOUR_SERVICE_CONFIG: dict[str, Any] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "healthCheckConfig": {"serviceName": ""},
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "0.15s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE", "CANCELLED"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.5},
}


def _options(max_message_bytes: int) -> list[tuple[str, Any]]:
    return [
        ("grpc.service_config", json.dumps(_NEIGHBOUR_SERVICE_CONFIG)),
        ("grpc.enable_retries", 1),
        # A host that vanished without a word is noticed within 15 s.
        ("grpc.keepalive_time_ms", 10_000),
        ("grpc.keepalive_timeout_ms", 5_000),
        # A service that is back is found within a second or so. The minimum is also the time that one attempt to
        # connect gets, and a peer that accepts and never answers holds calls up for as long.
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 1_000),
        ("grpc.max_reconnect_backoff_ms", 1_000),
        ("grpc.max_receive_message_length", max_message_bytes),
        ("grpc.max_send_message_length", max_message_bytes),
    ]


def open_channel(
    target: str,
    *,
    tls_ca_file: Path | None = None,
    tls_cert_file: Path | None = None,
    tls_key_file: Path | None = None,
    max_message_bytes: int = 16 << 20,
) -> grpc.aio.Channel:
    """A channel to another of our services; TLS when a CA file is given. Connects when first used.

    Args:
        target: `host:port`, or any gRPC target: with several addresses (`ipv4:10.0.0.1:50051,10.0.0.2:50051`, or a DNS
            name that has several) calls go to those that say SERVING, in turn.
        tls_ca_file: PEM certificates that sign the server's.
        tls_cert_file: PEM certificate shown to the server.
        tls_key_file: PEM key of that certificate.
        max_message_bytes: Of one message, either way.
    """
    options = _options(max_message_bytes)
    interceptors = [_UnaryRequestId(), _StreamRequestId()]
    credentials = channel_credentials(tls_ca_file, tls_cert_file, tls_key_file)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors)


def dependency_error(dependency: str, error: grpc.aio.AioRpcError) -> ZhiyinError:
    """What a failed call to `dependency` means for our own caller.

    A deadline that passed is ours (the timeout came from it). A dependency that is overloaded makes us overloaded:
    repeating at once would add to it. Everything else is that the dependency cannot serve: our caller did nothing
    wrong, whatever the dependency says.
    """
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        remaining = request_context.current().deadline.remaining()
        if remaining < 0.05:
            return DeadlineTooShort(f"{dependency} did not answer before the deadline")
        return DependencyUnavailable(dependency, "did not answer in time")
    pushback = _pushback(error)
    if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED and pushback is not None:
        return Overloaded(f"the {dependency} service", pushback)
    message = f"{error.code().name}: {error.details()}"
    return DependencyUnavailable(dependency, message, pushback if pushback is not None else _RETRY_AFTER_S)


def readable_reply(dependency: str, reply: R | None) -> R:
    """The reply, if it was a message at all: gRPC hands None over, as a success, for bytes that it cannot read.

    Raises:
        DependencyUnavailable: It was not.
    """
    if reply is None:
        raise DependencyUnavailable(dependency, "sent what is no message of this method")
    return reply


def _pushback(error: grpc.aio.AioRpcError) -> float | None:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-retry-pushback-ms":
            try:
                return max(int(value) / 1000, 0.001)
            except ValueError:
                return None  # not from one of ours
    return None


def _with_request_id(details: grpc.aio.ClientCallDetails) -> grpc.aio.ClientCallDetails:
    request_id = request_context.current().request_id
    if request_id == "background":
        return details
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    metadata.add("x-request-id", request_id)
    return details._replace(metadata=metadata)  # type: ignore[no-any-return,attr-defined]


class _UnaryRequestId(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Callable[..., Any], details: Any, request: Any) -> Any:
        return await continuation(_with_request_id(details), request)


class _StreamRequestId(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Callable[..., Any], details: Any, requests: Any) -> Any:
        return await continuation(_with_request_id(details), requests)
