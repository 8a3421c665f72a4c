"""Opaque tokens that a server gives out and takes back: page, attribution and consistency tokens.

A token is base64url(JSON payload + 16 bytes of HMAC-SHA256 over kind and payload). The kind is part of the
signature, so a page token never passes for another. Tokens are signed, not secret: put no text into them.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from service_runtime.durable_files import make_folder, sync
from service_runtime.errors import InvalidRequest, Violation

_MAC_BYTES = 16
_MAX_TOKEN_CHARS = 16_384
_FOREIGN = (
    "is no {kind} token of this service; pass one unchanged (replicas that take each other's tokens share one key: "
    "token_key_file)"
)

# Made once: a page of a list signs a token an item.
_as_json = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False, sort_keys=True).encode


class TokenSigner:
    """Signs and verifies tokens with one key; replicas that honour each other's tokens share it."""

    def __init__(self, key: bytes) -> None:
        if len(key) < 16:
            raise ValueError("a token key needs at least 16 bytes")
        self._key = key

    @property
    def fingerprint(self) -> str:
        """Tells keys apart, and nothing else about them."""
        return self._mac("fingerprint", b"").hex()[:16]

    def sign(self, kind: str, payload: dict[str, Any]) -> str:
        """A token that only this key verifies."""
        body = _as_json(payload).encode()
        return base64.urlsafe_b64encode(body + self._mac(kind, body)).decode().rstrip("=")

    def verify(self, kind: str, token: str, field: str) -> dict[str, Any]:
        """The payload of a token.

        Raises:
            InvalidRequest: `field` holds a token that was damaged, forged, or made for something else.
        """
        try:
            if len(token) > _MAX_TOKEN_CHARS:
                raise ValueError("too long")
            raw = base64.b64decode(token + "=" * (-len(token) % 4), altchars=b"-_", validate=True)
            body, mac = raw[:-_MAC_BYTES], raw[-_MAC_BYTES:]
            if not hmac.compare_digest(mac, self._mac(kind, body)):
                raise ValueError("wrong signature")
            payload = json.loads(body)
        except (ValueError, binascii.Error):
            raise InvalidRequest([Violation(field, _FOREIGN.format(kind=kind))]) from None
        if not isinstance(payload, dict):
            raise InvalidRequest([Violation(field, _FOREIGN.format(kind=kind))])
        return payload

    def page_start(self, kind: str, token: str, scope: Mapping[str, Any], scope_name: str = "catalogue") -> Any:
        """Where the page before ended, as its token says under `after`; None: there was no page before.

        Args:
            kind: Of the token.
            token: `page_token` of a request; empty: the first page.
            scope: What the token must say to be of this list.
            scope_name: What the scope is, for people.

        Raises:
            InvalidRequest: The token is not ours, or of another list.
        """
        if not token:
            return None
        payload = self.verify(kind, token, "page_token")
        if any(payload.get(name) != value for name, value in scope.items()):
            raise InvalidRequest([Violation("page_token", f"is of another {scope_name}; begin anew")])
        return payload["after"]

    def _mac(self, kind: str, body: bytes) -> bytes:
        return hmac.digest(self._key, kind.encode() + b"\0" + body, hashlib.sha256)[:_MAC_BYTES]


def load_or_create_key(path: Path) -> bytes:
    """The key in `path`, 32 random bytes made at first use and readable by the owner only."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        pass
    make_folder(path.parent)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(secrets.token_bytes(32))
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(temporary, path)  # fails when another process was first: then its key counts
    except FileExistsError:
        pass
    finally:
        temporary.unlink()
    sync(path.parent)
    return path.read_bytes()
