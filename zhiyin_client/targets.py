"""Where the services are and how to reach them."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import grpc

Service = Literal["encoder", "retrieval", "ranking"]


@dataclass(frozen=True)
class Targets:
    """Where each service is; None: calls that need it fail at once.

    A target is `host:port` or any other gRPC target. With several addresses (`ipv4:10.0.0.1:50051,10.0.0.2:50051`, or a
    DNS name that has several: `dns:///ranking:50053`) calls go to those that say SERVING, in turn.
    """

    encoder: str | None = None
    retrieval: str | None = None
    ranking: str | None = None

    @classmethod
    def at(cls, target: str) -> Targets:
        """All three behind one address, such as a proxy's."""
        return cls(target, target, target)

    def of(self, service: Service) -> str:
        """The target of a service. Raises ValueError when none was given."""
        target: str | None = getattr(self, service)
        if not target:
            raise ValueError(f"this client was given no target for {service}: Targets({service}='host:port')")
        return target


LOCAL = Targets("127.0.0.1:50051", "127.0.0.1:50052", "127.0.0.1:50053")
"""Where `zhiyin up` listens."""


@dataclass(frozen=True)
class Tls:
    """PEM files for a TLS connection; with a certificate of our own it is mTLS."""

    ca_file: Path | None = None
    """Certificates that sign the server's. None: those that gRPC brings along, the public ones."""
    cert_file: Path | None = None
    key_file: Path | None = None

    def credentials(self) -> grpc.ChannelCredentials:
        """Reads the files."""
        return grpc.ssl_channel_credentials(
            self.ca_file.read_bytes() if self.ca_file else None,
            self.key_file.read_bytes() if self.key_file else None,
            self.cert_file.read_bytes() if self.cert_file else None,
        )


def is_loopback(target: str) -> bool:
    """Whether a target is on this machine, all its addresses."""
    if target.startswith(("unix:", "unix-abstract:")):
        return True
    addresses = target.removeprefix("ipv4:").removeprefix("ipv6:").removeprefix("dns:///").split(",")
    return all(_is_loopback_host(address.rpartition(":")[0].strip("[]")) for address in addresses)


def _is_loopback_host(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
