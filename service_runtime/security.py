"""Transport security by certificate files, for servers and for channels."""

from __future__ import annotations

from pathlib import Path

import grpc

from service_runtime.settings import ServerSettings


def server_credentials(settings: ServerSettings) -> grpc.ServerCredentials | None:
    """Credentials from the settings' files; None means plaintext (which the settings allowed)."""
    if settings.tls_cert_file is None or settings.tls_key_file is None:
        return None
    client_ca = settings.tls_client_ca_file.read_bytes() if settings.tls_client_ca_file else None
    return grpc.ssl_server_credentials(
        [(settings.tls_key_file.read_bytes(), settings.tls_cert_file.read_bytes())],
        root_certificates=client_ca,
        require_client_auth=client_ca is not None,
    )


def channel_credentials(
    ca_file: Path | None, cert_file: Path | None = None, key_file: Path | None = None
) -> grpc.ChannelCredentials | None:
    """Credentials for calling a TLS server; None without a CA file (plaintext)."""
    if ca_file is None:
        return None
    return grpc.ssl_channel_credentials(
        ca_file.read_bytes(),
        key_file.read_bytes() if key_file else None,
        cert_file.read_bytes() if cert_file else None,
    )
