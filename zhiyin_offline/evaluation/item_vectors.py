"""Item vectors for an evaluation: the encoder service's own code on the passages that retrieval would send it."""

from __future__ import annotations

import asyncio
import hashlib
import math
import os
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from encoder_service.batch_queue import BatchQueue, Lane
from encoder_service.dynamic_batcher import DynamicBatcher, PendingText
from encoder_service.loading import LoadedModel, load_model
from encoder_service.model_directory import verify
from encoder_service.settings import EncoderSettings
from encoder_service.text_encoder import TextEncoder
from encoder_service.vector_cache import VectorCache
from retrieval_service.centering import unit
from retrieval_service.item import Item as RetrievalItem
from zhiyin.common.v1.item_pb2 import Item

Vectors = NDArray[np.float32]
_STEP = 256


def passages(items: Sequence[Item]) -> list[str]:
    """What is encoded of each item; empty where the only words are the item's own id.

    Where a set has no titles its ids stand in for them. Ids are often numbered by first appearance, so their digits
    tell who came together with whom: a vector of them would find targets that no words of an item can find.
    """
    return [
        "" if not item.text.strip() and item.title.strip() in ("", item.id.strip())
        else RetrievalItem(item.id, item.title, item.text).passage
        for item in items
    ]  # fmt: skip


def item_vectors(
    items: Sequence[Item],
    model_dir: Path,
    cache_dir: Path,
    progress: Callable[[int, int], None] = lambda done, all_: None,
) -> tuple[Vectors, str]:
    """Raw vectors of length 1, shape (items, dimensions), and the fingerprint of their space.

    Args:
        items: The catalogue. An item without words gets zeros.
        model_dir: Written by `zhiyin model export`.
        cache_dir: Where vectors are kept between runs, by model and texts.
        progress: Told how many of how many texts are done.

    Raises:
        ModelDirectoryError, BackendError, ParityError: The model cannot be used.
    """
    texts = passages(items)
    wanted = list(dict.fromkeys(text for text in texts if text))
    manifest = verify(model_dir)
    # Two precisions of a model share a space and still differ in the last digits: the build counts too.
    build = manifest.build_fingerprint("CPUExecutionProvider", "")
    path = cache_dir / f"vectors-{_digest(build, wanted)}.npy"
    if path.exists():
        encoded: Vectors = np.load(path)
    else:
        settings = EncoderSettings(model_dir=model_dir)
        cut = [_cut(text, settings.max_text_bytes) for text in wanted]
        encoded = asyncio.run(_encode(load_model(settings), cut, progress))
        _keep(path, encoded)
    numbers = {text: number for number, text in enumerate(wanted)}
    out = np.zeros((len(items), manifest.dimensions), dtype=np.float32)
    for row, text in enumerate(texts):
        if text:
            out[row] = encoded[numbers[text]]
    return out, manifest.space_fingerprint


async def _encode(model: LoadedModel, texts: Sequence[str], progress: Callable[[int, int], None]) -> Vectors:
    queue = BatchQueue[PendingText](model.max_batch_tokens, model.max_queued_tokens)
    batcher = DynamicBatcher(model.backend, queue, model.manifest.pad_token_id)
    batcher.start(model.tokens_per_second)
    encoder = TextEncoder(model.tokenizer, batcher, VectorCache(0))
    parts = [np.empty((0, model.manifest.dimensions), dtype=np.float32)]
    try:
        for start in range(0, len(texts), _STEP):
            answer = await encoder.encode(texts[start : start + _STEP], "passage", Lane.BULK, math.inf)
            parts.append(np.stack([text.vector for text in answer.texts]).astype(np.float32))
            progress(start + len(parts[-1]), len(texts))
    finally:
        await batcher.close()
        await asyncio.to_thread(encoder.close)
    return unit(np.concatenate(parts))


def _cut(text: str, max_bytes: int) -> str:
    """As retrieval cuts a text for the encoder: at a whole character."""
    return text.encode()[:max_bytes].decode(errors="ignore")


def _digest(fingerprint: str, texts: Sequence[str]) -> str:
    hasher = hashlib.blake2b(fingerprint.encode(), digest_size=16)
    for text in texts:
        encoded = text.encode()
        hasher.update(len(encoded).to_bytes(8, "little") + encoded)
    return hasher.hexdigest()


def _keep(path: Path, vectors: Vectors) -> None:
    """Whole or not at all: an interrupted run must not leave half a file behind."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    with aside.open("wb") as file:
        np.save(file, vectors)
    aside.replace(path)
