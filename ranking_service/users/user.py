"""A user as stored, and what one committed write changed: the language between store, cache, statistics and RPCs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ranking_service.rules.rule import RuleBook
from ranking_service.users.event import Erasure, LogEntry
from ranking_service.users.user_state import Interaction
from service_runtime.attributes import AttributeScalar

MAX_PROFILE_BYTES = 8 * 1024
MAX_FOLLOWS = 1_000
WRITABLE_FIELDS = frozenset({"profile", "attributes", "follows"})


@dataclass(frozen=True, slots=True)
class Profile:
    """What a caller says about a user."""

    text: str = ""
    attributes: Mapping[str, AttributeScalar] = field(default_factory=dict)
    follows: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class StoredUser:
    """A user as GetUser shows it.

    Attributes:
        revision: Counts the writes of the profile; 0: known by events only.
        updated_us: Microseconds since 1970 of the last write of the profile; 0: never written.
        event_count: Events recorded.
    """

    user_id: str
    profile: Profile
    revision: int
    updated_us: int
    event_count: int


@dataclass(frozen=True, slots=True)
class UserWrite:
    """One user of an UpsertUsers request.

    Attributes:
        fields: Which of `WRITABLE_FIELDS` change.
        expected_revision: The revision the caller believes in; None: any.
    """

    user_id: str
    profile: Profile
    fields: frozenset[str] = WRITABLE_FIELDS
    expected_revision: int | None = None


@dataclass(frozen=True, slots=True)
class UserChange:
    """What a committed write did to one user.

    Attributes:
        version_before: Version that the change applies to; a cached state at another version must be read anew.
        version_after: Version afterwards.
        interactions: New ones, in log order.
        seen: Items that are done with from now on.
        hidden: Items that must never come back.
        shown: Impressions: item and time, Unix seconds.
        profile: The profile from now on; None: as it was.
        reread: The change cannot be applied to a state in memory.
    """

    user_id: str
    user_key: int = 0
    version_before: int = 0
    version_after: int = 0
    interactions: tuple[Interaction, ...] = ()
    seen: frozenset[str] = frozenset()
    hidden: frozenset[str] = frozenset()
    shown: tuple[tuple[str, float], ...] = ()
    profile: Profile | None = None
    reread: bool = False


@dataclass(frozen=True, slots=True)
class Change:
    """A committed write of one catalogue.

    Attributes:
        before: The catalogue's sequence before the write.
        after: And after it; equal when nothing was written.
        entries: What the statistics fold in.
        users: What changed for whom.
        duplicates: Events that were known already.
        revisions: Of the users of an UpsertUsers request, in its order.
        deleted_events: How many events an erasure took.
        existed: Whether the erased user, or the deleted rule, was known.
        catalog_key: Of a catalogue that was made known.
        rules: All rules from now on; None: as they were.
    """

    catalog: str
    before: int
    after: int
    entries: tuple[LogEntry | Erasure, ...] = ()
    users: tuple[UserChange, ...] = ()
    duplicates: int = 0
    revisions: tuple[int, ...] = ()
    deleted_events: int = 0
    existed: bool = False
    catalog_key: int = 0
    rules: RuleBook | None = None
