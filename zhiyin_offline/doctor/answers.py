"""Who answers at an address: nobody, something else, or one of our services, and in what state."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from service_runtime.security import channel_credentials
from zhiyin_offline.doctor.patient import ClientTls

CALL_S = 3.0
_CONNECT_S = 2.0


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a health check.

    Attributes:
        listening: Whether anything takes connections.
        status: SERVING, NOT_SERVING, UNKNOWN (another gRPC server), or empty: it does not speak gRPC, or TLS fails.
        why: What the call ended with, where there is no status.
    """

    listening: bool
    status: str = ""
    why: str = ""


def split_address(address: str) -> tuple[str, int]:
    """Host and port.

    Raises:
        ValueError: It is no host:port.
    """
    host, _, port = address.rpartition(":")
    if not host:
        raise ValueError(f"{address} is not host:port")
    return host.strip("[]"), int(port)


def is_listening(address: str) -> bool:
    """Whether a connection can be made."""
    try:
        with socket.create_connection(split_address(address), timeout=_CONNECT_S):
            return True
    except (OSError, ValueError):
        return False


@contextmanager
def connected(address: str, tls: ClientTls) -> Iterator[grpc.Channel]:
    """A channel, closed afterwards."""
    credentials = channel_credentials(tls.ca_file, tls.cert_file, tls.key_file)
    channel = grpc.insecure_channel(address) if credentials is None else grpc.secure_channel(address, credentials)
    with channel:
        yield channel


def ask_health(address: str, full_name: str, tls: ClientTls) -> Answer:
    """Asks for the health of a service."""
    if not is_listening(address):
        return Answer(listening=False)
    try:
        with connected(address, tls) as channel:
            request = health_pb2.HealthCheckRequest(service=full_name)
            answer = health_pb2_grpc.HealthStub(channel).Check(request, timeout=CALL_S)
    except grpc.RpcError as error:
        if error.code() is grpc.StatusCode.NOT_FOUND:
            return Answer(True, "UNKNOWN", "it knows no such service")
        return Answer(True, "", f"{error.code().name}: {' '.join((error.details() or '').split())[:200]}")
    except OSError as error:
        return Answer(True, "", f"a TLS file cannot be read: {error}")
    return Answer(True, str(health_pb2.HealthCheckResponse.ServingStatus.Name(answer.status)))
