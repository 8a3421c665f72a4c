"""The cache of fitted label sets keeps what was used last, within its bytes."""

from __future__ import annotations

import numpy as np

from encoder_service.classification import LabelClassifier
from encoder_service.classifier_cache import ClassifierCache


def fitted(labels: int) -> LabelClassifier:
    return LabelClassifier(np.zeros((labels, 8)), np.zeros(8), 0.035, 8.0, 0)


def test_the_least_recently_used_goes_first() -> None:
    cache = ClassifierCache(3 * fitted(3).nbytes)
    for key in (b"a", b"b", b"c"):
        cache.put(key, fitted(3))
    assert cache.get(b"a") is not None
    cache.put(b"d", fitted(3))
    assert cache.get(b"b") is None
    assert cache.get(b"a") is not None
    assert len(cache) == 3


def test_bytes_are_bounded_and_counted_once_a_key() -> None:
    cache = ClassifierCache(1000)
    for labels in (2, 3, 4, 2):
        cache.put(b"same", fitted(labels))
        assert cache.bytes == fitted(labels).nbytes
    cache.put(b"too large", fitted(100))
    assert (len(cache), cache.bytes) == (0, 0)
