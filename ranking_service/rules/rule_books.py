"""The rules of every catalogue in memory: what a list looks up."""

from __future__ import annotations

import threading

from ranking_service.rules.rule import NO_RULES, RuleBook


class RuleBooks:
    """Rule books by catalogue. Read without a lock by everybody; a book is replaced as a whole."""

    def __init__(self) -> None:
        self._books: dict[str, RuleBook] = {}
        self._lock = threading.Lock()

    def of(self, catalog: str) -> RuleBook:
        """The newest book that this replica has seen; NO_RULES for a catalogue without one."""
        return self._books.get(catalog, NO_RULES)

    def put(self, catalog: str, book: RuleBook) -> None:
        """Takes a book in, unless a newer one is here: the writer and the tail come in either order."""
        with self._lock:
            if book.sequence >= self.of(catalog).sequence:
                self._books[catalog] = book
