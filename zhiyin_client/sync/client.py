"""The client: every call, over channels that wait, repeat and find a service again.

The modules under `sync` are made from those under `aio` by scripts/generate_sync_client; change these.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from zhiyin_client.consistency import Written
from zhiyin_client.sync.calls import Calls
from zhiyin_client.sync.connection import Connection
from zhiyin_client.sync.import_calls import ImportCalls
from zhiyin_client.sync.item_calls import ItemCalls
from zhiyin_client.sync.list_calls import ListCalls
from zhiyin_client.sync.rule_calls import RuleCalls
from zhiyin_client.sync.text_calls import TextCalls
from zhiyin_client.sync.user_calls import UserCalls
from zhiyin_client.targets import LOCAL, Targets, Tls


class Client(ItemCalls, TextCalls, ListCalls, UserCalls, RuleCalls, ImportCalls, Calls):
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
        super().__init__(Connection(where, tls, token, plaintext_token), catalog, timeout, None)

    def in_catalog(self, catalog: str) -> Self:
        """This client for another catalogue, over the same channels."""
        return self._view(catalog, None)

    def session(self, written: Written | None = None) -> Self:
        """This client, over the same channels, with calls that see what the session's earlier calls wrote.

        `written` goes on with a session begun elsewhere; `.written` of the session is what to keep for that.
        """
        return self._view(self.catalog, written or Written())

    def close(self) -> None:
        """Closes the channels, those of sessions and other views too; calls under way fail."""
        self._connection.close()

    def _view(self, catalog: str, written: Written | None) -> Self:
        view = object.__new__(type(self))
        Calls.__init__(view, self._connection, catalog, self.timeout, written)
        return view

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
