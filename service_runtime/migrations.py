"""Makes and upgrades the schema of a store, by the Alembic revisions that its package ships.

    no tables                  -> every revision in turn
    first release's tables     -> they are the first revision; the later ones
    an older revision          -> the later ones
    the newest revision        -> nothing; Alembic is not even imported
    anything else              -> refused: a newer release's schema, another service's, or somebody else's tables

All in one transaction that nobody else shares: a crash leaves the old or the new schema, and of several processes that
start at once one migrates while the others wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sqlalchemy import Connection, inspect, text

from service_runtime.errors import FailedPrecondition
from service_runtime.telemetry import get_logger

_log = get_logger(__name__)
_ENVIRONMENT = Path(__file__).parent / "migration_environment"
_VERSION_TABLE = "alembic_version"


@dataclass(frozen=True, slots=True)
class StoreSchema:
    """The revisions of a store.

    Attributes:
        name: For messages, such as `item store`.
        folder: Of the revision files.
        revisions: All of them, oldest first. They begin with a word of the store's own, such as `items_0001`.
        first_tables: Tables of the first revision, by which a database of the release before Alembic is known.
    """

    name: str
    folder: Path
    revisions: Sequence[str]
    first_tables: frozenset[str]

    @property
    def head(self) -> str:
        """The revision that this release reads and writes."""
        return self.revisions[-1]


def upgrade(connection: Connection, schema: StoreSchema) -> None:
    """Brings the database to the newest revision, inside the connection's transaction.

    Raises:
        FailedPrecondition: The database is none that this release can upgrade; the message says what to do.
    """
    _check_encoding(connection, schema)
    _wait_for_others(connection)
    tables = set(inspect(connection).get_table_names())
    found = stored_revision(connection) if _VERSION_TABLE in tables else None
    if found == schema.head:
        return
    if found is not None and found not in schema.revisions:
        raise _unknown_revision(schema, found)
    first_release = found is None and tables >= schema.first_tables
    if found is None and not first_release and tables & schema.first_tables:
        raise FailedPrecondition(
            f"the database of the {schema.name} holds tables of something else "
            f"({', '.join(sorted(tables & schema.first_tables))}); give every service a database of its own",
            reason="STORE_OF_ANOTHER",
        )
    _run_alembic(connection, schema, schema.revisions[0] if first_release else None)
    _log.info(
        "store_schema_upgraded",
        store=schema.name,
        before=schema.revisions[0] if first_release else found,
        after=schema.head,
    )


def require_newest(connection: Connection, schema: StoreSchema) -> None:
    """For whoever only reads: makes sure that the database has the tables that this release knows.

    Raises:
        FailedPrecondition: It has not; the message says what to do.
    """
    found = stored_revision(connection) if inspect(connection).has_table(_VERSION_TABLE) else None
    if found == schema.head:
        return
    if found is not None and found not in schema.revisions:
        raise _unknown_revision(schema, found)
    raise FailedPrecondition(
        f"the {schema.name} has {f'schema {found}' if found else 'no schema of this release'}, and this release reads "
        f"{schema.head}: start the service once, which upgrades it, or use the release that wrote it",
        reason="SCHEMA_VERSION_MISMATCH",
    )


def stored_revision(connection: Connection) -> str | None:
    """The revision that a database is at; None: none is noted."""
    found: str | None = connection.execute(text(f"SELECT version_num FROM {_VERSION_TABLE}")).scalar_one_or_none()
    return found


def _check_encoding(connection: Connection, schema: StoreSchema) -> None:
    if connection.dialect.name != "postgresql":
        return
    encoding = connection.exec_driver_sql("SHOW server_encoding").scalar_one()
    if encoding != "UTF8":
        raise FailedPrecondition(
            f"the database of the {schema.name} has the encoding {encoding}, which cannot hold every text; make one "
            "with createdb --encoding=UTF8",
            reason="STORE_ENCODING",
        )


def _wait_for_others(connection: Connection) -> None:
    """SQLite's BEGIN IMMEDIATE has done it already."""
    if connection.dialect.name == "postgresql":
        # A long migration is not cut short, here or in those that wait for it.
        connection.exec_driver_sql("SET LOCAL statement_timeout = 0")
        connection.exec_driver_sql("SET LOCAL lock_timeout = 0")
        connection.exec_driver_sql(
            "SELECT pg_advisory_xact_lock(hashtextextended('zhiyin schema of ' || current_schema(), 0))"
        )


def _run_alembic(connection: Connection, schema: StoreSchema, stamp: str | None) -> None:
    # A tenth of a second to import, which only a start that migrates pays.
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("path_separator", "newline")
    config.set_main_option("script_location", str(_ENVIRONMENT).replace("%", "%%"))
    config.set_main_option("version_locations", str(schema.folder).replace("%", "%%"))
    config.attributes["connection"] = connection
    if stamp is not None:
        command.stamp(config, stamp)
    command.upgrade(config, schema.head)


def _unknown_revision(schema: StoreSchema, found: str) -> FailedPrecondition:
    if found.split("_")[0] != schema.head.split("_")[0]:
        return FailedPrecondition(
            f"the database of the {schema.name} is another service's (its schema is {found}); give every service a "
            "database of its own",
            reason="STORE_OF_ANOTHER",
        )
    return FailedPrecondition(
        f"the {schema.name} has schema {found}, and this release knows none newer than {schema.head}: a newer release "
        "has upgraded it. Run that release or a later one, or restore a backup made before the upgrade",
        reason="SCHEMA_VERSION_MISMATCH",
    )
