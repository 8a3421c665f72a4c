"""The cache keeps what was used last and never more bytes than it may."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from encoder_service.vector_cache import EncodedText, VectorCache, text_key


def entry(value: int, dimensions: int = 4) -> EncodedText:
    return EncodedText(np.full(dimensions, value, dtype=np.float32), 3, False)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 200)), max_size=80), st.integers(0, 5000))
def test_bytes_stay_bounded_and_hits_are_what_was_put(puts: list[tuple[int, int]], max_bytes: int) -> None:
    cache = VectorCache(max_bytes)
    last: dict[int, EncodedText] = {}
    for name, dimensions in puts:
        last[name] = entry(name, dimensions)
        cache.put(text_key(str(name)), last[name])
        assert cache.bytes <= max_bytes
    kept = {name for name in last if cache.get(text_key(str(name))) is not None}
    assert all(cache.get(text_key(str(name))) is last[name] for name in kept)
    assert cache.bytes == sum(last[name].vector.nbytes + 400 for name in kept)


def test_the_least_recently_used_goes_first() -> None:
    cache = VectorCache(3 * 416)
    for name in (b"a", b"b", b"c"):
        cache.put(name, entry(1))
    cache.get(b"a")
    cache.put(b"d", entry(1))
    assert [name for name in (b"a", b"b", b"c", b"d") if cache.get(name)] == [b"a", b"c", b"d"]


def test_no_bytes_means_no_cache() -> None:
    cache = VectorCache(0)
    cache.put(b"a", entry(1))
    assert cache.get(b"a") is None
    assert len(cache) == 0


def test_the_key_tells_texts_and_scripts_apart() -> None:
    texts = ["query: 电影", "query: 電影", "passage: 电影", "query:  电影", "Query: 电影"]
    assert len({text_key(text) for text in texts}) == len(texts)
