"""What all calls of a client share: the connection, the catalogue, the deadline, the session."""

from __future__ import annotations

from zhiyin_client.consistency import Written
from zhiyin_client.methods import Method, RequestT, ResponseT
from zhiyin_client.sync.connection import Connection


class Calls:
    """Base of the groups of calls."""

    def __init__(self, connection: Connection, catalog: str, timeout: float, written: Written | None) -> None:
        self._connection = connection
        self.catalog = catalog
        """The catalogue that every call is about."""
        self.timeout = timeout
        """Seconds for a call that is given no time of its own."""
        self.written = written
        """Of a session: what its calls have written. None: this is no session."""

    def _call(self, method: Method[RequestT, ResponseT], request: RequestT, timeout: float | None = None) -> ResponseT:
        if self.written is not None:
            self.written.ask_for_it(request)
        response = self._connection.call(method, request, self.timeout if timeout is None else timeout)
        if self.written is not None:
            self.written.note(response)
        return response
