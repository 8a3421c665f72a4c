"""Erased rows leave the write-ahead log now, or as soon as what is in the way is gone."""

from __future__ import annotations

import time

import pytest

from ranking_service.users import erased_bytes
from ranking_service.users.erased_bytes import ErasedBytes


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(erased_bytes, "_TRIES", 3)
    monkeypatch.setattr(erased_bytes, "_PAUSE_S", 0.001)
    monkeypatch.setattr(erased_bytes, "_LATER_S", 0.02)


class Log:
    """A log that can be emptied from the `possible`-th try on."""

    def __init__(self, possible: int) -> None:
        self.possible, self.tries = possible, 0

    def empty(self) -> bool:
        self.tries += 1
        return self.tries >= self.possible

    def until_emptied(self) -> None:
        give_up = time.monotonic() + 10
        while self.tries < self.possible:
            assert time.monotonic() < give_up
            time.sleep(0.005)


def test_a_reader_that_is_in_the_way_for_a_moment_is_waited_for() -> None:
    log = Log(possible=3)
    ErasedBytes(log.empty).forget()
    assert log.tries == 3


def test_what_cannot_be_done_now_is_done_later_and_once() -> None:
    log = Log(possible=30)
    bytes_of_ann = ErasedBytes(log.empty)
    bytes_of_ann.forget()
    bytes_of_ann.forget()
    assert log.tries < log.possible
    log.until_emptied()
    time.sleep(0.1)
    assert log.tries == log.possible


def test_nothing_is_tried_after_the_end() -> None:
    log = Log(possible=10_000)
    erased = ErasedBytes(log.empty)
    erased.forget()
    erased.close()
    tries = log.tries
    time.sleep(0.1)
    assert log.tries == tries
