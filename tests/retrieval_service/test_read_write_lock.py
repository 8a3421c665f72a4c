"""The fair readers-writer lock: exclusion, sharing, and nobody starves."""

from __future__ import annotations

import threading

from retrieval_service.read_write_lock import FairReadWriteLock


def test_a_writer_is_alone_and_readers_are_together() -> None:
    lock, inside = FairReadWriteLock(), threading.Barrier(3, timeout=10)
    seen: list[int] = []
    counter = 0

    def read() -> None:
        with lock.reading():
            inside.wait()  # passes only when three readers are inside at once

    readers = [threading.Thread(target=read) for _ in range(3)]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join()

    def write() -> None:
        nonlocal counter
        for _ in range(300):
            with lock.writing():
                value = counter
                seen.append(value)
                counter = value + 1

    writers = [threading.Thread(target=write) for _ in range(4)]
    for thread in writers:
        thread.start()
    for thread in writers:
        thread.join()
    assert counter == 1200
    assert seen == sorted(seen)


def test_a_reader_gets_its_turn_under_a_backlog_of_writers() -> None:
    lock, order = FairReadWriteLock(), []
    started = threading.Event()

    def act(name: str, writes: bool) -> None:
        with lock.writing() if writes else lock.reading():
            order.append(name)

    with lock.writing():
        threads = []
        for name, writes in (("w1", True), ("r1", False), ("w2", True), ("r2", False), ("w3", True)):
            thread = threading.Thread(target=act, args=(name, writes))
            thread.start()
            threads.append(thread)
            while len(lock._waiting) < len(threads):  # each stands in line before the next comes
                started.wait(0.001)
    for thread in threads:
        thread.join()
    assert order == ["w1", "r1", "w2", "r2", "w3"]


def test_an_error_inside_gives_the_lock_back() -> None:
    lock = FairReadWriteLock()
    for guard in (lock.writing, lock.reading):
        try:
            with guard():
                raise ValueError
        except ValueError:
            pass
    with lock.writing():
        pass
