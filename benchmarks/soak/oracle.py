"""What must be there: the truth of the soak, kept beside the services in plain dictionaries.

A write that is under way leaves two states possible; once it is acknowledged there is one again. Each key has one
writer, which repeats a write until it is answered, so there is never doubt for long.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

ABSENT = 0
"""The version of an item that is not there."""


@dataclass
class Items:
    """Versions of items by id."""

    versions: dict[str, set[int]] = field(default_factory=dict)
    writes: dict[str, int] = field(default_factory=dict)
    """How many writes of an id have begun: whoever compares before and after knows whether one came in between."""

    @contextmanager
    def writing(self, ids: Iterable[str], version: int) -> Iterator[None]:
        """While a write is under way its old and its new state are possible; afterwards the new one is the only one."""
        names = list(ids)
        for name in names:
            self.versions.setdefault(name, {ABSENT}).add(version)
            self.writes[name] = self.writes.get(name, 0) + 1
        yield
        for name in names:
            self.versions[name] = {version}

    def possible(self, name: str) -> set[int]:
        """The versions that a read may find now."""
        return self.versions.get(name, {ABSENT})

    def absent(self) -> set[str]:
        """Items that were there once and that no read may find now."""
        return {name for name, versions in self.versions.items() if versions == {ABSENT}}

    def writes_of(self, names: Iterable[str]) -> dict[str, int]:
        """For comparing: see `writes`."""
        return {name: self.writes.get(name, 0) for name in names}

    def settled(self) -> dict[str, int]:
        """Versions of what is there, when no write is under way."""
        assert all(len(versions) == 1 for versions in self.versions.values())
        found = {name: next(iter(versions)) for name, versions in self.versions.items()}
        return {name: version for name, version in found.items() if version != ABSENT}


@dataclass
class User:
    """What one user did."""

    events: set[str] = field(default_factory=set)
    done: set[str] = field(default_factory=set)
    """Items that must not be recommended any more."""
    token: str = ""
    changing: bool = False
    """A write of this user is under way."""


@dataclass
class Users:
    """Users by id."""

    users: dict[str, User] = field(default_factory=dict)

    def of(self, name: str) -> User:
        """The user, made at first sight."""
        return self.users.setdefault(name, User())
