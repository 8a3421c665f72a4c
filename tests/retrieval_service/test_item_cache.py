"""The cache of items and their views: what fits stays, what changes goes, and nothing grows past the bound."""

from __future__ import annotations

from retrieval_service.item_cache import Hidden, ItemCache


def shown(payload: bytes, hidden: Hidden) -> bytes:
    return payload + b" without " + ",".join(hidden).encode()


def test_a_view_is_made_once_and_follows_the_item() -> None:
    cache, made = ItemCache(1 << 20), []

    def make(payload: bytes, hidden: Hidden) -> bytes:
        made.append((payload, hidden))
        return shown(payload, hidden)

    cache.put(1, 7, b"old")
    assert cache.views(1, [7, 8], ("text",), make) == [b"old without text", None]
    assert cache.views(1, [7], ("text",), make) == [b"old without text"]
    assert cache.views(1, [7], (), make) == [b"old without "]
    assert cache.views(2, [7], (), make) == [None]
    assert len(made) == 2
    cache.put(1, 7, b"new")
    assert cache.views(1, [7], ("text",), make) == [b"new without text"]
    cache.forget(1, 7)
    assert cache.views(1, [7], ("text",), make) == [None]
    assert cache.bytes == 0


def test_an_item_that_changes_while_its_view_is_made_keeps_no_old_view() -> None:
    cache = ItemCache(1 << 20)
    cache.put(1, 7, b"old")

    def make(payload: bytes, hidden: Hidden) -> bytes:
        if payload == b"old":
            cache.put(1, 7, b"new")
        return shown(payload, hidden)

    assert cache.views(1, [7], (), make) == [b"old without "]
    assert cache.views(1, [7], (), make) == [b"new without "]


def test_no_number_of_items_and_read_masks_exceeds_the_bound() -> None:
    cache = ItemCache(20_000)
    for number in range(100):
        cache.put(1, number, b"x" * 100)
        for field in range(20):
            cache.views(1, [number], (f"field{field}",), shown)
        assert cache.bytes <= 20_000
    assert cache.views(1, [99], (), shown) != [None]
    assert cache.views(1, [0], (), shown) == [None]  # used least recently
    off = ItemCache(0)
    off.put(1, 1, b"x")
    assert (off.views(1, [1], (), shown), off.bytes) == ([None], 0)
