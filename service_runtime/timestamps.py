"""Moments between the wire and Python, to the microsecond, for all years that a Timestamp allows."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_moment(value: Timestamp) -> datetime:
    """A checked timestamp."""
    # Not ToDatetime(): that one is naive, and loses the years before 1970 on some platforms.
    return _EPOCH + timedelta(seconds=value.seconds, microseconds=value.nanos // 1000)


def set_moment(target: Timestamp, moment: datetime) -> None:
    """Fills a timestamp."""
    delta = moment - _EPOCH
    target.seconds, target.nanos = delta.days * 86_400 + delta.seconds, delta.microseconds * 1000
