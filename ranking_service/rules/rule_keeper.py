"""Keeps the rules of all catalogues: written through the one writer, in memory for every list."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from functools import partial

from ranking_service.rules.rule import RuleBook
from ranking_service.rules.rule_books import RuleBooks
from ranking_service.users.catalogs import KnownCatalogs
from ranking_service.users.consistency import ConsistencyTokens
from ranking_service.users.store.rule_rows import delete_rule, put_rule
from ranking_service.users.store.store import UserStore
from ranking_service.users.store_wait import read_at
from ranking_service.users.user import Change
from service_runtime.sql_writer import SqlWriter
from zhiyin.ranking.v1 import ranking_service_pb2 as pb


class RuleKeeper:
    """Everything behind the RPCs about rules.

    Args:
        applied: Sequence up to which this replica has followed a catalogue, its rules included.
        token_wait_s: Longest wait for a store that is behind a token.

    Attributes:
        books: What a list looks up.
    """

    def __init__(
        self,
        store: UserStore,
        writer: SqlWriter[Change],
        catalogs: KnownCatalogs,
        tokens: ConsistencyTokens,
        applied: Callable[[str], int],
        token_wait_s: float,
    ) -> None:
        self._store, self._writer, self._catalogs, self._tokens = store, writer, catalogs, tokens
        self._applied, self._token_wait_s = applied, token_wait_s
        self.books = RuleBooks()

    async def put(
        self, catalog: str, rule: pb.Rule, max_rules: int, validate_only: bool, size_bytes: int
    ) -> tuple[pb.Rule, Change]:
        """Makes or replaces a checked rule; in force here when it returns. Gives it as kept.

        Raises:
            QuotaReached: It is new, and the catalogue has `max_rules`.
            NotFound: The catalogue does not exist.
        """
        key = await self._catalogs.key(catalog)
        kept = pb.Rule()
        kept.CopyFrom(rule)
        kept.updated_at.FromMicroseconds(time.time_ns() // 1_000)
        write = partial(
            put_rule, catalog=catalog, catalog_key=key, rule=kept, max_rules=max_rules, validate_only=validate_only
        )
        return kept, await self._writer.submit(write, size_bytes)

    async def delete(self, catalog: str, rule_id: str) -> Change:
        """Deletes a rule, if there is one of that id."""
        key = await self._catalogs.key(catalog)
        write = partial(delete_rule, catalog=catalog, catalog_key=key, rule_id=rule_id)
        return await self._writer.submit(write, len(rule_id))

    async def page(self, catalog: str, after: str, limit: int) -> list[pb.Rule]:
        """Rules as kept, in the order of their ids, those behind `after`. From the store: what any replica wrote."""
        key = await self._catalogs.key(catalog)
        return await asyncio.to_thread(self._store.rule_page, key, after, limit)

    async def reach(self, catalog: str, consistency_token: str) -> None:
        """Makes the book at least as new as a token says.

        Raises:
            InvalidRequest, FailedPrecondition: See `ConsistencyTokens.sequence`.
            StoreUnavailable: The store did not reach the token's sequence in time.
        """
        needed = self._tokens.sequence(catalog, consistency_token)
        if needed <= self._applied(catalog):
            return
        key = await self._catalogs.key(catalog)
        book, _ = await read_at(needed, lambda: self._newer(catalog, key), self._token_wait_s)
        self._take(catalog, book)

    def load(self, catalog: str, key: int) -> None:
        """Reads what other replicas, or the process before this one, wrote."""
        book, _ = self._newer(catalog, key)
        self._take(catalog, book)

    def apply(self, change: Change) -> None:
        """Takes a committed write in."""
        self._take(change.catalog, change.rules)

    def _newer(self, catalog: str, key: int) -> tuple[RuleBook | None, int]:
        return self._store.rules_since(key, self.books.of(catalog).sequence)

    def _take(self, catalog: str, book: RuleBook | None) -> None:
        if book is not None:
            self.books.put(catalog, book)
