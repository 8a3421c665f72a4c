"""What a command raises when the server refused its request."""

from __future__ import annotations

from zhiyin_client.refusals import Refusal


class ServerRefused(Exception):
    """The server refused a request of a command."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(str(refusal))
        self.refusal = refusal
