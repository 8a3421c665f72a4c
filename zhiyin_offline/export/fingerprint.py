"""The identity of a vector space: equal exactly when vectors may be compared."""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Iterator
from pathlib import Path

from zhiyin_offline.export.checkpoint import Checkpoint
from zhiyin_offline.export.locate import WEIGHT_FILES, CheckpointError

# Parts of config.json that say nothing about the vectors and change with the library that wrote it.
_IRRELEVANT = {"_name_or_path", "transformers_version", "torch_dtype", "dtype", "use_cache", "architectures"}


def space_fingerprint(checkpoint: Checkpoint) -> str:
    """32 hexadecimal digits over weights, architecture, tokenizer, pooling, prompts, length limit and dimensions.

    Read from the files alone, so the same for every export precision and version of the exporting libraries.
    """
    digest = hashlib.sha256()
    description = {
        "architecture": {k: v for k, v in checkpoint.config.items() if k not in _IRRELEVANT},
        "tokenizer": json.loads(checkpoint.tokenizer().to_str()),
        "pooling": checkpoint.pooling,
        "normalized": checkpoint.normalized,
        "prompts": dict(checkpoint.prompts),
        "max_tokens": checkpoint.max_tokens,
        "dimensions": checkpoint.dimensions,
    }
    digest.update(json.dumps(description, sort_keys=True, ensure_ascii=False).encode())
    for part in _weights(checkpoint.folder):
        digest.update(part)
    return digest.hexdigest()[:32]


def _weights(folder: Path) -> Iterator[bytes | memoryview]:
    single, index, pickled = (folder / name for name in WEIGHT_FILES)
    if single.is_file():
        yield from _safetensors(single)
    elif index.is_file():
        shards = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
        for shard in shards:
            yield from _safetensors(folder / shard)
    else:
        yield pickled.read_bytes()


def _safetensors(path: Path) -> Iterator[bytes | memoryview]:
    """Name, type, shape and bytes of each tensor in the order of names; the free text of the header is left out."""
    content = memoryview(path.read_bytes())
    try:
        (length,) = struct.unpack("<Q", content[:8])
        header = json.loads(bytes(content[8 : 8 + length]))
        tensors = sorted((name, tensor) for name, tensor in header.items() if name != "__metadata__")
        for name, tensor in tensors:
            start, end = tensor["data_offsets"]
            yield f"{name}|{tensor['dtype']}|{tensor['shape']}".encode()
            yield content[8 + length + start : 8 + length + end]
    except (struct.error, ValueError, KeyError) as error:
        raise CheckpointError(f"{path} is no valid safetensors file: {error}") from error
