"""The tables of the user store. Users, rules and the log (events, erasures) are the truth; the rest is folded from it.

A user is a number (`user_key`) everywhere but in the users table, so that statistics and their snapshots hold no ids.
Keys are never used again: somebody erased who comes back is somebody new.

These are the tables as the newest of `revisions` leaves them; a change here needs a new revision.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy as sa
from sqlalchemy import (
    BigInteger,
    Column,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    SmallInteger,
    Table,
    UniqueConstraint,
)

from service_runtime.migrations import StoreSchema

SCHEMA = StoreSchema(
    name="user store",
    folder=Path(__file__).parent / "revisions",
    revisions=("users_0001", "users_0002", "users_0003"),
    first_tables=frozenset({"store_facts", "catalogs", "users", "follows", "attribute_kinds", "events", "erasures"}),
)

metadata = MetaData()

# The order of the bytes: PostgreSQL's own depends on the locale, and changes with it.
Text = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")

# INTEGER in SQLite, so that the key is the row id; BIGINT elsewhere.
_KEY = BigInteger().with_variant(Integer, "sqlite")

store_facts = Table(
    "store_facts",
    metadata,
    Column("name", Text, primary_key=True),
    Column("value", Text, nullable=False),
)

catalogs = Table(
    "catalogs",
    metadata,
    Column("catalog_key", _KEY, primary_key=True),
    Column("name", Text, nullable=False, unique=True),
    # Of the last write. Raised inside the writing transaction, so commit order is sequence order.
    Column("sequence", BigInteger, nullable=False, default=0),
    # Of the last write of a rule: what other replicas look at.
    Column("rules_sequence", BigInteger, nullable=False, server_default=sa.text("0")),
)

users = Table(
    "users",
    metadata,
    Column("user_key", _KEY, primary_key=True),
    Column("catalog_key", _KEY, ForeignKey("catalogs.catalog_key"), nullable=False),
    Column("user_id", Text, nullable=False),
    Column("profile", Text, nullable=False, default=""),
    Column("attributes", Text, nullable=False, default="{}"),
    Column("revision", BigInteger, nullable=False, default=0),  # writes by UpsertUsers; 0: known by events only
    Column("version", BigInteger, nullable=False, default=0),  # writes and events
    Column("event_count", BigInteger, nullable=False, default=0),
    Column("sequence", BigInteger, nullable=False, default=0),  # of the last write or event
    Column("updated_us", BigInteger, nullable=False, default=0),
    UniqueConstraint("catalog_key", "user_id"),
    Index("users_by_sequence", "catalog_key", "sequence"),
    sqlite_autoincrement=True,
)

follows = Table(
    "follows",
    metadata,
    Column("user_key", _KEY, ForeignKey("users.user_key"), primary_key=True),
    Column("position", Integer, primary_key=True),
    Column("followed_id", Text, nullable=False),
    Index("follows_by_followed", "followed_id"),
)

attribute_kinds = Table(
    "attribute_kinds",
    metadata,
    Column("catalog_key", _KEY, ForeignKey("catalogs.catalog_key"), primary_key=True),
    Column("name", Text, primary_key=True),
    Column("kind", Text, nullable=False),
)

events = Table(
    "events",
    metadata,
    Column("catalog_key", _KEY, ForeignKey("catalogs.catalog_key"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("event_id", Text, nullable=False),
    Column("digest", LargeBinary, nullable=False),
    Column("user_key", _KEY, nullable=False),
    Column("event_type", SmallInteger, nullable=False),
    Column("item_id", Text, nullable=False),
    Column("value", Float(53)),
    Column("time_us", BigInteger, nullable=False),
    Column("session_id", Text, nullable=False),
    Column("text", Text, nullable=False),
    Column("context", Text),
    Column("attribution_token", Text, nullable=False),
    Column("list_id", Text, nullable=False),
    UniqueConstraint("catalog_key", "event_id"),
    Index("events_by_user", "user_key", "time_us", "sequence"),
    sqlite_with_rowid=False,
)

erasures = Table(
    "erasures",
    metadata,
    Column("catalog_key", _KEY, ForeignKey("catalogs.catalog_key"), primary_key=True),
    Column("sequence", BigInteger, primary_key=True),
    Column("user_key", _KEY, nullable=False),
    sqlite_with_rowid=False,
)

rules = Table(
    "rules",
    metadata,
    Column("catalog_key", _KEY, ForeignKey("catalogs.catalog_key"), primary_key=True),
    Column("rule_id", Text, primary_key=True),
    Column("sequence", BigInteger, nullable=False),  # of the last write
    Column("payload", LargeBinary, nullable=False),  # the contract's own message
)
