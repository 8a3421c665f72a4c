"""The client: every call, over channels that wait, repeat and find a service again.

The modules under `sync` are made from those under `aio` by scripts/generate_sync_client; change these.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from zhiyin_client.aio.calls import AsyncCalls
from zhiyin_client.aio.connection import AsyncConnection
from zhiyin_client.aio.import_calls import AsyncImportCalls
from zhiyin_client.aio.item_calls import AsyncItemCalls
from zhiyin_client.aio.list_calls import AsyncListCalls
from zhiyin_client.aio.rule_calls import AsyncRuleCalls
from zhiyin_client.aio.text_calls import AsyncTextCalls
from zhiyin_client.aio.user_calls import AsyncUserCalls
from zhiyin_client.consistency import Written
from zhiyin_client.targets import LOCAL, Targets, Tls


class AsyncClient(
    AsyncItemCalls, AsyncTextCalls, AsyncListCalls, AsyncUserCalls, AsyncRuleCalls, AsyncImportCalls, AsyncCalls
):
    """Calls the services. Make one for a process and share it; it connects when first used.

    Args:
        targets: One address for all services, such as a proxy's, or Targets; the default is where `zhiyin up` listens.
        catalog: The catalogue that every call is about.
        tls: Tls() or one with files; None: plaintext.
        token: Sent as `authorization: Bearer` with every call; a function is asked anew each time.
        plaintext_token: Whether the token may leave this machine without TLS, as where a mesh encrypts.
        timeout: Seconds for a call that is given no time of its own, repeats included. There is no call without a
            deadline.

    Raises:
        ValueError: The token would leave this machine in plaintext.
    """

    def __init__(
        self,
        targets: str | Targets = LOCAL,
        *,
        catalog: str = "default",
        tls: Tls | None = None,
        token: str | Callable[[], str] | None = None,
        plaintext_token: bool = False,
        timeout: float = 10.0,
    ) -> None:
        where = Targets.at(targets) if isinstance(targets, str) else targets
        super().__init__(AsyncConnection(where, tls, token, plaintext_token), catalog, timeout, None)

    def in_catalog(self, catalog: str) -> Self:
        """This client for another catalogue, over the same channels."""
        return self._view(catalog, None)

    def session(self, written: Written | None = None) -> Self:
        """This client, over the same channels, with calls that see what the session's earlier calls wrote.

        `written` goes on with a session begun elsewhere; `.written` of the session is what to keep for that.
        """
        return self._view(self.catalog, written or Written())

    async def close(self) -> None:
        """Closes the channels, those of sessions and other views too; calls under way fail."""
        await self._connection.close()

    def _view(self, catalog: str, written: Written | None) -> Self:
        view = object.__new__(type(self))
        AsyncCalls.__init__(view, self._connection, catalog, self.timeout, written)
        return view

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()
