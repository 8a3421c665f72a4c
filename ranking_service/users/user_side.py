"""The write side of ranking as one object: users, events, what all users together did, and rules."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from ranking_service.rules.rule_keeper import RuleKeeper
from ranking_service.statistics.statistics_log import EventStatistics
from ranking_service.users import user_metrics
from ranking_service.users.catalogs import CatalogLookup, KnownCatalogs
from ranking_service.users.consistency import ConsistencyTokens
from ranking_service.users.erased_bytes import ErasedBytes
from ranking_service.users.event import Event
from ranking_service.users.store.event_rows import record_events
from ranking_service.users.store.schema import store_facts
from ranking_service.users.store.store import UserStore
from ranking_service.users.store.user_rows import erase_user, upsert_users
from ranking_service.users.user import Change, StoredUser, UserWrite
from ranking_service.users.user_cache import UserCache
from ranking_service.users.user_reader import CachedUserReader
from ranking_service.users.user_state import Statistics, UserReader
from service_runtime.durable_files import make_folder
from service_runtime.errors import StoreUnavailable
from service_runtime.signed_token import TokenSigner
from service_runtime.sql import is_sqlite, sqlite_url, when_available
from service_runtime.sql_writer import SqlWriter
from service_runtime.telemetry import get_logger

_log = get_logger(__name__)
_TAIL_INTERVAL_S = 0.5


@dataclass(frozen=True, slots=True)
class UserSideSettings:
    """What can be set about users, events and statistics. The defaults are the shipped ones.

    Attributes:
        store_url: SQLAlchemy URL of the user store; empty: a SQLite file in the data directory.
        max_events_per_batch: Events in one request or stream batch, at least 1.
        max_users_per_batch: Users in one request, at least 1.
        max_queued_bytes: Bytes of requests that may wait for the writer; beyond: refused with a retry hint.
        max_recent_interactions: Latest interactions of a user that the recommendation sees; 1 to 10,000.
        user_cache_interactions: Bound of the user cache, counted in interactions and seen items of all cached users.
        popularity_half_life_s: Seconds after which an event counts half.
        snapshot_every_events: Events after which the statistics are saved; a restart replays about so many.
        tail_interval_s: Seconds between looks for what other replicas wrote; 0: never; None: as the database needs.
        token_wait_s: Longest wait for the store of a replica to reach a consistency token, in seconds.
    """

    store_url: str = field(default="", repr=False)
    max_events_per_batch: int = 1_000
    max_users_per_batch: int = 1_000
    max_queued_bytes: int = 64 << 20
    max_recent_interactions: int = 200
    user_cache_interactions: int = 500_000
    popularity_half_life_s: float = 30 * 86_400.0
    snapshot_every_events: int = 50_000
    tail_interval_s: float | None = None
    token_wait_s: float = 2.0


class UserSide:
    """Everything behind RecordEvents and the user RPCs.

    Attribution tokens are signed by the recommendation with kind `attribution`; RecordEvents reads three keys of the
    payload and leaves the others alone: `c` the catalogue, `i` the item id, `l` the id of the list.

    Attributes:
        settings: As given.
        signer: As given.
        reader: Reads users, for the recommendation.
        statistics: Popularity and transitions, for the recommendation.
        rules: The rules of the catalogues.
        on_erased: Told of users that other replicas have erased: catalogue and keys. Called in any thread.
    """

    @classmethod
    def open(
        cls,
        data_dir: Path,
        settings: UserSideSettings,
        signer: TokenSigner,
        catalog_lookup: CatalogLookup,
        on_fatal: Callable[[BaseException], None] | None = None,
    ) -> UserSide:
        """Puts the parts together; touches no disk yet.

        Args:
            on_fatal: Called once, in another thread, when memory and store disagree: the process must end and replay.
        """
        return cls(data_dir, settings, signer, catalog_lookup, on_fatal)

    def __init__(
        self,
        data_dir: Path,
        settings: UserSideSettings,
        signer: TokenSigner,
        catalog_lookup: CatalogLookup,
        on_fatal: Callable[[BaseException], None] | None,
    ) -> None:
        self.settings = settings
        self.signer = signer
        self._data_dir = data_dir
        url = settings.store_url or sqlite_url(data_dir / "users.sqlite3")
        self._store = UserStore(url)
        self._erased_bytes = ErasedBytes(self._store.forget_deleted_bytes)
        self._alone = is_sqlite(url)
        self._tail_interval_s = 0.0 if self._alone else _TAIL_INTERVAL_S
        if settings.tail_interval_s is not None:
            self._tail_interval_s = settings.tail_interval_s
        self._cache = UserCache(settings.user_cache_interactions, settings.max_recent_interactions)
        self._statistics = EventStatistics(
            self._store, data_dir / "statistics", settings.popularity_half_life_s, settings.snapshot_every_events
        )
        self._writer: SqlWriter[Change] = SqlWriter(
            self._store.engine,
            apply=self._apply,
            name="user",
            max_queued_bytes=settings.max_queued_bytes,
            facts=store_facts,
            on_fatal=on_fatal,
        )
        self._catalogs = KnownCatalogs(self._store, self._writer, catalog_lookup, self._statistics.add)
        self._tokens = ConsistencyTokens(signer, lambda: self._store.epoch)
        self.rules = RuleKeeper(
            self._store,
            self._writer,
            self._catalogs,
            self._tokens,
            self._statistics.event_sequence,
            settings.token_wait_s,
        )
        self._tail: asyncio.Task[None] | None = None
        self._stopping = asyncio.Event()
        self._started = False
        self.on_erased: Callable[[str, Sequence[int]], None] = lambda _catalog, _keys: None
        self.statistics: Statistics = self._statistics
        self.reader: UserReader = CachedUserReader(
            self._store,
            self._cache,
            self._catalogs,
            self._tokens,
            self._statistics.event_sequence,
            settings.max_recent_interactions,
            settings.token_wait_s,
        )

    async def start(self) -> None:
        """Opens the store, loads the statistics (snapshot, then newer events) and starts the writer."""
        await when_available(self._load)
        self._writer.start()
        user_metrics.WRITE_QUEUE_BYTES.set_function(lambda: self._writer.queued_bytes)
        if self._tail_interval_s > 0:
            self._tail = asyncio.create_task(self._tail_log())
        self._started = True

    async def close(self) -> None:
        """Finishes what waits, saves the statistics and closes the store."""
        if self._tail is not None:
            self._stopping.set()
            await self._tail
        await self._writer.close()
        self._erased_bytes.close()
        await asyncio.to_thread(self._statistics.close)
        self._store.close()

    def readiness(self) -> str | None:
        """Why users and events cannot be served; None: they can."""
        if not self._started:
            return "the statistics are being loaded"
        if self._writer.failure is not None:
            return "the user store's writer has failed; the process must be restarted"
        return None

    def log_progress(self) -> dict[str, tuple[int, int]]:
        """For each catalogue the last sequence in the store and the last one folded in here. Reads the store.

        Raises:
            StoreUnavailable: It does not answer.
        """
        heads = self._store.heads()
        return {catalog: (head, self._statistics.event_sequence(catalog)) for catalog, head in heads.items()}

    async def require_catalog(self, catalog: str) -> None:
        """Asks retrieval for a catalogue that is not known here yet.

        Raises:
            NotFound: There is none of that name.
        """
        await self._catalogs.key(catalog)

    def consistency_token(self, catalog: str) -> str:
        """A token for everything this replica has seen of a catalogue."""
        return self.token(catalog, self._statistics.event_sequence(catalog))

    def token(self, catalog: str, sequence: int) -> str:
        """A token for everything of a catalogue up to a sequence."""
        return self._tokens.make(catalog, sequence)

    async def record(self, catalog: str, events: Sequence[Event], size_bytes: int) -> Change:
        """Records checked events: durable, folded in and visible to reads when it returns.

        Raises:
            AlreadyExists: An event id is known with other content; nothing was recorded.
            NotFound: The catalogue does not exist.
        """
        key = await self._catalogs.key(catalog)
        write = partial(record_events, catalog=catalog, catalog_key=key, batch=events)
        return await self._writer.submit(write, size_bytes)

    async def upsert(self, catalog: str, writes: Sequence[UserWrite], validate_only: bool, size_bytes: int) -> Change:
        """Writes checked users, all or none.

        Raises:
            InvalidRequest: An attribute has another type in this catalogue.
            RevisionConflict: A stored revision is not the expected one.
            NotFound: The catalogue does not exist.
        """
        key = await self._catalogs.key(catalog)
        write = partial(
            upsert_users,
            catalog=catalog,
            catalog_key=key,
            writes=writes,
            now_us=time.time_ns() // 1_000,
            validate_only=validate_only,
        )
        return await self._writer.submit(write, size_bytes)

    async def erase(self, catalog: str, user_id: str) -> Change:
        """Erases a user: rows, statistics, and the bytes they left in the database and the snapshot."""
        key = await self._catalogs.key(catalog)
        write = partial(erase_user, catalog=catalog, catalog_key=key, user_id=user_id)
        change = await self._writer.submit(write, len(user_id))
        if change.after > change.before:
            user_metrics.USERS_ERASED.inc()
            await asyncio.to_thread(self._forget_bytes, catalog)
        return change

    async def stored_user(self, catalog: str, user_id: str) -> StoredUser | None:
        """A user as stored; None: unknown."""
        key = await self._catalogs.key(catalog)
        return await asyncio.to_thread(self._store.read_user, key, user_id)

    async def events_of(self, catalog: str, user_id: str, page_size: int) -> AsyncIterator[list[Event]]:
        """All events of a user, oldest first, in pages."""
        key = await self._catalogs.key(catalog)
        place: tuple[int, int] | None = None
        while True:
            page, place = await asyncio.to_thread(self._store.read_events, key, user_id, place, page_size)
            if page:
                yield page
            if place is None:
                return

    def _load(self) -> None:
        make_folder(self._data_dir)
        self._store.open()
        if self._store.note_token_key(self.signer.fingerprint) and not self._alone:
            _log.warning(
                "token_key_differs",
                consequence="a token from one replica is refused by the other as none of this service",
                cure="give all replicas one key: token_key_file (ZHIYIN_RANKING_TOKEN_KEY_FILE)",
            )
        self._erased_bytes.forget()  # of an erasure that a crash interrupted
        for catalog, key in self._catalogs.load().items():
            self.rules.load(catalog, key)
            self._statistics.load(catalog, key)

    def _apply(self, changes: Sequence[Change]) -> None:
        """Runs in the writer's thread, after the commit and before the callers hear of it."""
        for change in changes:
            if change.after == change.before:
                continue
            in_step = self._statistics.event_sequence(change.catalog) >= change.before or self._caught_up(change)
            # Cache and rules first: a reader that sees the sequence may trust them.
            self._cache.apply(change)
            self.rules.apply(change)
            if in_step:
                self._statistics.apply(change)

    def _caught_up(self, change: Change) -> bool:
        """Follows other replicas up to a change of our own; False: the store went away right after the commit.

        Then the statistics stay behind until the tail or the next write finds the store again.
        """
        try:
            self._follow(change.catalog)
        except StoreUnavailable as error:
            _log.warning("statistics_stay_behind", catalog=change.catalog, reason=error.message)
            return False
        return True

    def _follow(self, catalog: str) -> None:
        """Catches up with what other replicas wrote."""
        key = self._catalogs.known()[catalog]
        applied = self._statistics.event_sequence(catalog)
        changed, erased, sequence = self._store.changed_since(key, applied)
        if sequence > applied:
            # No further than the cache was told: a reader that sees the sequence trusts the cache, and the rules.
            self._cache.drop(catalog, changed, erased, sequence)
            if erased:
                self.on_erased(catalog, erased)
            self.rules.load(catalog, key)
            if self._statistics.catch_up(catalog, sequence):
                self._statistics.save(catalog)

    async def _tail_log(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(self._tail_interval_s):
                    await self._stopping.wait()
                return
            try:
                await asyncio.to_thread(self._follow_all)
            except StoreUnavailable as error:  # the next round tries again
                _log.warning("log_tail_failed", reason=error.message)

    def _follow_all(self) -> None:
        known = self._catalogs.known()
        for catalog, sequence in self._store.heads().items():
            if catalog in known and sequence > self._statistics.event_sequence(catalog):
                self._follow(catalog)

    def _forget_bytes(self, catalog: str) -> None:
        self._statistics.save(catalog)
        self._erased_bytes.forget()
