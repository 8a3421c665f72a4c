"""The user store: the truth about users and events, in SQLite or PostgreSQL.

Reads run in the caller's thread, each in one read transaction. Writes are functions of a connection, for the one
writer (`service_runtime.sql_writer`).
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from dataclasses import replace

from sqlalchemy import Connection, Engine, delete, insert, select
from sqlalchemy.exc import IntegrityError

from ranking_service.rules.rule import RuleBook
from ranking_service.users.event import Event, EventContext
from ranking_service.users.store import event_rows, rule_rows, user_rows
from ranking_service.users.store.impression_rows import load_impressions
from ranking_service.users.store.schema import SCHEMA, catalogs, store_facts
from ranking_service.users.user import Change, StoredUser
from ranking_service.users.user_state import UserState
from service_runtime import migrations, sql
from service_runtime.attributes import AttributeScalar
from zhiyin.ranking.v1 import ranking_service_pb2 as pb

DEFAULT_CATALOG = "default"
# The release before Alembic read "1" and refuses a database with anything else.
_SCHEMA_FOR_OLD_RELEASES = "2"


class UserStore:
    """Opens the database, makes its tables at first use and reads it.

    Attributes:
        engine: For the writer.
        epoch: Names this database: sequence numbers of another one mean nothing here.
    """

    def __init__(self, url: str) -> None:
        self.engine: Engine = sql.open_engine(url, one_writer_at_a_time=SCHEMA.name)
        self._reader = sql.reader(self.engine)
        self.epoch = ""

    def open(self) -> None:
        """Makes or upgrades the schema.

        Raises:
            FailedPrecondition: The database is of a newer release, or somebody else's.
            StoreUnavailable: It does not answer.
        """
        with sql.writing(self.engine) as connection:
            migrations.upgrade(connection, SCHEMA)
            facts: dict[str, str] = dict(connection.execute(select(store_facts)).all())
            if "epoch" not in facts:
                facts = {"epoch": secrets.token_hex(8), "schema_version": _SCHEMA_FOR_OLD_RELEASES}
                rows = [{"name": name, "value": value} for name, value in facts.items()]
                connection.execute(insert(store_facts), rows)
                connection.execute(insert(catalogs).values(name=DEFAULT_CATALOG, sequence=0))
        self.epoch = facts["epoch"]

    def note_token_key(self, fingerprint: str) -> bool:
        """Notes which key this replica signs tokens with; tells whether the one before it used another.

        Raises:
            StoreUnavailable: The store does not answer.
        """
        is_key = store_facts.c.name == "token_key"
        with sql.writing(self.engine) as connection:
            before = connection.execute(select(store_facts.c.value).where(is_key)).scalar_one_or_none()
            if before == fingerprint:
                return False
            connection.execute(delete(store_facts).where(is_key))
            connection.execute(insert(store_facts).values(name="token_key", value=fingerprint))
        return before is not None

    def close(self) -> None:
        """Closes all connections."""
        self.engine.dispose()

    def catalogs(self) -> dict[str, int]:
        """Key by name of every known catalogue."""
        with sql.reading(self._reader) as connection:
            query = select(catalogs.c.name, catalogs.c.catalog_key)
            return dict(connection.execute(query).all())

    def sequence(self, catalog_key: int) -> int:
        """The catalogue's sequence now."""
        with sql.reading(self._reader) as connection:
            return _sequence(connection, catalog_key)

    def read_state(
        self, catalog_key: int, user_id: str, max_recent: int, shown_since: float | None = None
    ) -> tuple[UserState, int]:
        """A user and the catalogue's sequence at that moment.

        Args:
            shown_since: Also what the user was shown after this moment, Unix seconds; None: not that.
        """
        with sql.reading(self._reader) as connection:
            sequence = _sequence(connection, catalog_key)
            state = user_rows.load_state(connection, catalog_key, user_id, max_recent)
            if shown_since is not None:
                state = replace(state, shown=load_impressions(connection, state.key, shown_since))
            return state, sequence

    def read_user(self, catalog_key: int, user_id: str) -> StoredUser | None:
        """A user as GetUser shows it; None: unknown."""
        with sql.reading(self._reader) as connection:
            return user_rows.load_user(connection, catalog_key, user_id)

    def read_events(
        self, catalog_key: int, user_id: str, after: tuple[int, int] | None, limit: int
    ) -> tuple[list[Event], tuple[int, int] | None]:
        """A page of a user's events, oldest first, and where the next begins; None: there is none."""
        with sql.reading(self._reader) as connection:
            return user_rows.load_events(connection, catalog_key, user_id, after, limit)

    def read_log(self, catalog_key: int, after: int, until: int | None = None) -> Iterator[event_rows.LogPage]:
        """The log after a sequence, in pages, each with the sequence it reaches.

        Args:
            until: Where to stop; None: at the catalogue's sequence.
        """
        with sql.reading(self._reader) as connection:
            end = _sequence(connection, catalog_key) if until is None else until
            yield from event_rows.read_log(connection, catalog_key, after, end)

    def contexts(self, catalog_key: int) -> Iterator[tuple[int, EventContext]]:
        """Sequence and circumstances of the events that have any, in the order of the log."""
        with sql.reading(self._reader) as connection:
            yield from event_rows.read_contexts(connection, catalog_key)

    def user_attributes(self, catalog_key: int) -> dict[int, dict[str, AttributeScalar]]:
        """Attributes by the key of the user, of all who have any."""
        with sql.reading(self._reader) as connection:
            return dict(user_rows.load_attributes(connection, catalog_key))

    def heads(self) -> dict[str, int]:
        """The sequence of every catalogue by its name."""
        with sql.reading(self._reader) as connection:
            return dict(connection.execute(select(catalogs.c.name, catalogs.c.sequence)).all())

    def changed_since(self, catalog_key: int, after: int) -> tuple[list[str], list[int], int]:
        """What writes after a sequence touched: ids of users, keys of erased users, and the sequence reached."""
        with sql.reading(self._reader) as connection:
            head = _sequence(connection, catalog_key)
            changed = user_rows.changed_users(connection, catalog_key, after)
            return changed, user_rows.erased_users(connection, catalog_key, after), head

    def rules_since(self, catalog_key: int, known: int) -> tuple[RuleBook | None, int]:
        """The rules of a catalogue and its sequence at that moment.

        Args:
            known: Sequence of the book at hand; nothing is read where that is the newest.
        """
        with sql.reading(self._reader) as connection:
            sequence = _sequence(connection, catalog_key)
            if rule_rows.rules_sequence(connection, catalog_key) <= known:
                return None, sequence
            return rule_rows.load_book(connection, catalog_key), sequence

    def rule_page(self, catalog_key: int, after: str, limit: int) -> list[pb.Rule]:
        """Rules as they are kept, in the order of their ids, those behind `after`."""
        with sql.reading(self._reader) as connection:
            return rule_rows.load_page(connection, catalog_key, after, limit)

    def forget_deleted_bytes(self) -> bool:
        """Moves the write-ahead log into the database and empties it, so that deleted rows leave no bytes behind.

        Returns:
            False when a reader held the log back, or the disk is full or fails; try again.
        """
        return sql.empty_write_ahead_log(self.engine)


def add_catalog(connection: Connection, name: str) -> Change:
    """Makes a catalogue known and tells its key; one that is known keeps it."""
    query = select(catalogs.c.catalog_key).where(catalogs.c.name == name)
    key = connection.execute(query).scalar_one_or_none()
    if key is None:
        made = insert(catalogs).values(name=name, sequence=0).returning(catalogs.c.catalog_key)
        try:
            with connection.begin_nested():
                key = connection.execute(made).scalar_one()
        except IntegrityError:  # another replica was first
            key = connection.execute(query).scalar_one()
    return Change(name, 0, 0, catalog_key=int(key))


def _sequence(connection: Connection, catalog_key: int) -> int:
    query = select(catalogs.c.sequence).where(catalogs.c.catalog_key == catalog_key)
    return int(connection.execute(query).scalar_one())
