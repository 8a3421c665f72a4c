"""The sequence model of a bundle: a graph for users, numbers for items."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np

from ranking_service.bundles.bundle import BundleUnusable
from ranking_service.candidate import Floats
from ranking_service.sequence_encoder import SequenceEncoder
from ranking_service.sequence_model import SequenceModel

SPACE = "sequence"


def sequence_items(item_ids: Sequence[str], vectors: Floats, projection: Floats, fingerprint: str) -> bytes:
    """The item side as a file of a bundle.

    Args:
        item_ids: Of the items that have a vector.
        vectors: Shape (items, d).
        projection: From a semantic vector to one of this space, shape (semantic d, d); no rows: there is none.
        fingerprint: Of the space.
    """
    out = io.BytesIO()
    np.savez(
        out,
        item_ids=np.frombuffer("\n".join(item_ids).encode(), np.uint8),
        vectors=vectors.astype(np.float16),
        projection=projection.astype(np.float32),
        fingerprint=np.frombuffer(fingerprint.encode(), np.uint8),
    )
    return out.getvalue()


def sequence_model(graph: bytes, items: bytes, version: int) -> SequenceModel:
    """The model that two files describe.

    Raises:
        BundleUnusable: They do not.
    """
    try:
        with np.load(io.BytesIO(items), allow_pickle=False) as saved:
            ids = saved["item_ids"].tobytes().decode().split("\n")
            vectors, projection = saved["vectors"], saved["projection"]
            fingerprint = saved["fingerprint"].tobytes().decode()
        encoder = SequenceEncoder(graph)
    except Exception as error:
        raise BundleUnusable(f"the sequence model cannot be read: {error}") from None
    rows = {item_id: row for row, item_id in enumerate(ids)}
    return SequenceModel(encoder, SPACE, version, fingerprint, rows, vectors, projection)
