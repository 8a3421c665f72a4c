"""Where the services are and how to reach them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import grpc

DEFAULT_ENCODER = "127.0.0.1:50051"
DEFAULT_RETRIEVAL = "127.0.0.1:50052"
DEFAULT_RANKING = "127.0.0.1:50053"


@dataclass(frozen=True)
class Tls:
    """PEM files for a TLS connection; with a certificate of our own it is mTLS."""

    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None


def connect(address: str, tls: Tls | None = None) -> grpc.Channel:
    """Opens a channel: TLS where a CA is given, plaintext otherwise."""
    options = [
        ("grpc.max_receive_message_length", 64 << 20),
        ("grpc.max_send_message_length", 64 << 20),
        ("grpc.keepalive_time_ms", 30_000),
        # An import goes on a second after a service has restarted.
        ("grpc.max_reconnect_backoff_ms", 1_000),
    ]
    if tls is None or tls.ca_file is None:
        return grpc.insecure_channel(address, options)
    credentials = grpc.ssl_channel_credentials(
        tls.ca_file.read_bytes(),
        tls.key_file.read_bytes() if tls.key_file else None,
        tls.cert_file.read_bytes() if tls.cert_file else None,
    )
    return grpc.secure_channel(address, credentials, options)
