"""Consistency tokens: what a caller has written or seen, as a promise that any replica can keep.

A token names the store's epoch, the catalogue and the sequence number of the write. Every write, of events, users,
rules or an erasure, raises the sequence of its catalogue inside its transaction, so "at least this sequence" implies
the version of every user in it; the token stays the same size for a thousand users and names none of them.
"""

from __future__ import annotations

from collections.abc import Callable

from service_runtime.errors import FailedPrecondition, InvalidRequest, Violation
from service_runtime.signed_token import TokenSigner

_KIND = "consistency"


class ConsistencyTokens:
    """Makes and reads the tokens of one store.

    Args:
        signer: Shared by all replicas.
        epoch: Gives the epoch of the store, once it is open.
    """

    def __init__(self, signer: TokenSigner, epoch: Callable[[], str]) -> None:
        self._signer = signer
        self._epoch = epoch

    def make(self, catalog: str, sequence: int) -> str:
        """A token for everything of a catalogue up to a sequence number."""
        return self._signer.sign(_KIND, {"e": self._epoch(), "c": catalog, "s": sequence})

    def sequence(self, catalog: str, token: str, field: str = "consistency_token") -> int:
        """The sequence number a token asks for; 0 for no token.

        Raises:
            InvalidRequest: The token is damaged, forged, or of another catalogue.
            FailedPrecondition: It is of another store: the database was replaced since.
        """
        if not token:
            return 0
        payload = self._signer.verify(_KIND, token, field)
        if payload["e"] != self._epoch():
            raise FailedPrecondition(
                "the consistency token is of another user store: the database was replaced since; go on without it",
                reason="STORE_EPOCH_MISMATCH",
            )
        if payload["c"] != catalog:
            raise InvalidRequest([Violation(field, f"is of catalogue {payload['c']!r}, the request is of {catalog!r}")])
        return int(payload["s"])
