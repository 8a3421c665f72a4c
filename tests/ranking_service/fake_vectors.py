"""Vectors that a person can predict: texts that share words (or Chinese characters) lie close together."""

from __future__ import annotations

import re
import zlib

import numpy as np

DIMENSIONS = 64
_FILLERS = set("我喜欢的看听") | {"i", "a", "the", "and", "of", "to", "in", "like", "love"}
FINGERPRINT = "fake-words-64"


def text_vector(text: str) -> np.ndarray:
    """The sum of one fixed random direction a word, of length 1."""
    words = [word for word in re.findall(r"[a-z0-9]+|[一-鿿]", text.lower()) if word not in _FILLERS] or ["empty"]
    vector = np.zeros(DIMENSIONS)
    for word in words:
        vector += np.random.default_rng(zlib.crc32(word.encode())).standard_normal(DIMENSIONS)
    return (vector / np.linalg.norm(vector)).astype(np.float32)
