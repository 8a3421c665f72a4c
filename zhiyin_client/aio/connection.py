"""Channels to the services, opened when first used, and one call over them."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Callable
from typing import Any

import grpc

from zhiyin_client.aio.primitives import open_channel
from zhiyin_client.channel_options import client_channel_options
from zhiyin_client.errors import ServiceFault, error_of
from zhiyin_client.methods import Method, RequestT, ResponseT
from zhiyin_client.refusals import Refusal
from zhiyin_client.targets import Service, Targets, Tls, is_loopback

Metadata = tuple[tuple[str, str], ...]


class AsyncConnection:
    """The channels of a client; views of the client share them.

    Args:
        targets: Where the services are.
        tls: None: plaintext.
        token: Sent as bearer token with every call; a function is asked anew each time.
        plaintext_token: Whether the token may leave this machine without TLS, as where a mesh encrypts.

    Raises:
        ValueError: It would and may not.
    """

    def __init__(
        self, targets: Targets, tls: Tls | None, token: str | Callable[[], str] | None, plaintext_token: bool
    ) -> None:
        self._targets, self._tls, self._token = targets, tls, token
        self._channels: dict[tuple[Service, bool], Any] = {}
        self._opening = threading.Lock()  # threads share a client; nothing waits while it is held
        remote = [t for t in (targets.encoder, targets.retrieval, targets.ranking) if t and not is_loopback(t)]
        if token is not None and tls is None and remote and not plaintext_token:
            raise ValueError(
                f"the token would go to {remote[0]} in plaintext; give tls=, or plaintext_token=True where something "
                "else encrypts"
            )

    async def call(self, method: Method[RequestT, ResponseT], request: RequestT, timeout: float) -> ResponseT:
        """Makes a call. `timeout`: seconds for all of it, repeats and pauses included.

        Raises ZhiyinError.
        """
        metadata = self.metadata()
        request_id = metadata[0][1]
        try:
            response: ResponseT | None = await method.on(self.channel(method.service, method.repeatable))(
                request, timeout=timeout, metadata=metadata
            )
        except grpc.RpcError as failed:
            raise error_of(failed, method.name, request_id) from failed
        if response is None:  # gRPC hands None over, as a success, for bytes that it cannot read
            unreadable = Refusal(grpc.StatusCode.INTERNAL, "the server sent what is no message of this method")
            raise ServiceFault(unreadable, method.name, request_id)
        return response

    def channel(self, service: Service, repeat: bool = True) -> Any:
        """The channel to a service. Raises ValueError when the client has no target for it."""
        key = (service, repeat)
        with self._opening:
            if key not in self._channels:
                credentials = self._tls.credentials() if self._tls else None
                options = client_channel_options(repeat=repeat)
                self._channels[key] = open_channel(self._targets.of(service), options, credentials)
            return self._channels[key]

    def metadata(self) -> Metadata:
        """What goes with a call: an id that the logs of all services have, first, and the token."""
        metadata: Metadata = (("x-request-id", uuid.uuid4().hex),)
        if self._token is None:
            return metadata
        token = self._token if isinstance(self._token, str) else self._token()
        return (*metadata, ("authorization", f"Bearer {token}"))

    async def close(self) -> None:
        """Closes all channels; calls under way fail."""
        with self._opening:
            channels, self._channels = self._channels, {}
        for channel in channels.values():
            await channel.close()
