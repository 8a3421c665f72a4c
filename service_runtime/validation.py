"""Collects everything wrong with a request, so that the caller hears of it all at once."""

from __future__ import annotations

import math
import re
import unicodedata

from google.protobuf.timestamp_pb2 import Timestamp

from service_runtime.errors import InvalidRequest, Violation

_CATALOG = re.compile(r"[a-z][a-z0-9_-]{0,63}")
# RFC 3339 years 0001 to 9999, the range google.protobuf.Timestamp allows.
_MIN_SECONDS, _MAX_SECONDS = -62_135_596_800, 253_402_300_799


class Violations:
    """A list of violations that grows while a request is read."""

    def __init__(self) -> None:
        self.found: list[Violation] = []

    def __bool__(self) -> bool:
        return bool(self.found)

    def add(self, field: str, description: str) -> None:
        """Notes one violation."""
        self.found.append(Violation(field, description))

    def check_id(self, field: str, value: str, max_bytes: int = 256) -> None:
        """An id: 1 to `max_bytes` bytes of UTF-8, no control characters."""
        if not value:
            self.add(field, "is empty; give an id")
        elif len(value.encode()) > max_bytes:
            self.add(field, f"has {len(value.encode())} bytes; at most {max_bytes} are allowed")
        elif any(unicodedata.category(c) == "Cc" for c in value):
            self.add(field, "has control characters; remove them")

    def check_text(self, field: str, value: str, max_bytes: int) -> None:
        """A text of at most `max_bytes` bytes of UTF-8, without NUL."""
        if len(value) > max_bytes or len(value.encode()) > max_bytes:
            self.add(field, f"has {len(value.encode())} bytes; at most {max_bytes} are allowed")
        if "\0" in value:
            self.add(field, "has a NUL character; remove it")

    def check_range(self, field: str, value: float, low: float, high: float) -> None:
        """A finite number in [low, high]."""
        if not math.isfinite(value):
            self.add(field, "is not a finite number")
        elif not low <= value <= high:
            self.add(field, f"is {value:g}; must lie between {low:g} and {high:g}")

    def check_count(self, field: str, count: int, low: int, high: int) -> None:
        """A list of `low` to `high` entries."""
        if count < low:
            self.add(field, f"has {count} entries; at least {low} {'is' if low == 1 else 'are'} needed")
        elif count > high:
            self.add(field, f"has {count} entries; at most {high} are allowed")

    def check_catalog(self, field: str, value: str) -> None:
        """A catalogue name: 1 to 64 of a-z, 0-9, - and _, starting with a letter."""
        if not value:
            self.add(field, "is empty; name a catalogue, such as `default`")
        elif not _CATALOG.fullmatch(value):
            self.add(field, "is no catalogue name; use 1 to 64 of a-z, 0-9, - and _, starting with a letter")

    def check_timestamp(self, field: str, value: Timestamp) -> None:
        """A moment between the years 1 and 9999 with nanoseconds in range."""
        if not (_MIN_SECONDS <= value.seconds <= _MAX_SECONDS and 0 <= value.nanos < 1_000_000_000):
            self.add(field, "is outside of the years 1 to 9999, or its nanos are out of range")

    def raise_if_any(self) -> None:
        """Ends reading.

        Raises:
            InvalidRequest: Something was found.
        """
        if self.found:
            raise InvalidRequest(self.found)
