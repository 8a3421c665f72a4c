"""Channels to other services: keepalive, retries by service config, the request id passed on, errors translated."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from service_runtime import request_context
from service_runtime.errors import DeadlineTooShort, DependencyUnavailable, ZhiyinError
from service_runtime.security import channel_credentials

# Retries UNAVAILABLE only, at most three tries, and stops retrying while more than half of the calls fail.
# Clients in any language may use the same document.
RETRY_SERVICE_CONFIG: dict[str, Any] = {
    "methodConfig": [
        {
            "name": [{}],
            "retryPolicy": {
                "maxAttempts": 3,
                "initialBackoff": "0.05s",
                "maxBackoff": "1s",
                "backoffMultiplier": 3,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.5},
}


def channel_options(max_message_bytes: int = 16 << 20) -> list[tuple[str, Any]]:
    """Options of a client channel."""
    return [
        ("grpc.service_config", json.dumps(RETRY_SERVICE_CONFIG)),
        ("grpc.enable_retries", 1),
        ("grpc.keepalive_time_ms", 30_000),
        ("grpc.keepalive_timeout_ms", 10_000),
        ("grpc.initial_reconnect_backoff_ms", 100),
        ("grpc.min_reconnect_backoff_ms", 100),
        ("grpc.max_reconnect_backoff_ms", 2_000),
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
    """A channel to `host:port` (or any gRPC target); TLS when a CA file is given. Connects when first used."""
    options = channel_options(max_message_bytes)
    interceptors = [_UnaryRequestId(), _StreamRequestId()]
    credentials = channel_credentials(tls_ca_file, tls_cert_file, tls_key_file)
    if credentials is None:
        return grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
    return grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors)


def dependency_error(dependency: str, error: grpc.aio.AioRpcError) -> ZhiyinError:
    """What a failed call to `dependency` means for our own caller.

    A deadline that passed is ours (the timeout came from it); everything else is that the dependency cannot serve:
    our caller did nothing wrong, whatever the dependency says.
    """
    if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
        remaining = request_context.current().deadline.remaining()
        if remaining < 0.05:
            return DeadlineTooShort(f"{dependency} did not answer before the deadline")
        return DependencyUnavailable(dependency, "did not answer in time")
    return DependencyUnavailable(dependency, f"{error.code().name}: {error.details()}", retry_after_s=_pushback(error))


def _pushback(error: grpc.aio.AioRpcError) -> float:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-retry-pushback-ms":
            return max(int(value) / 1000, 0.001)
    return 0.5


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
