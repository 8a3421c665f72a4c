"""The learned sources of a bundle: numbers and ids, one file a source."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ranking_service.bundles.bundle import BundleUnusable
from ranking_service.learned_sources.communities import Communities
from ranking_service.learned_sources.item_factors import ItemFactors
from ranking_service.learned_sources.item_table import ItemTable
from ranking_service.learned_sources.learned_sources import LearnedSources

TABLE_FILE = "item_table.npz"
FACTORS_FILE = "item_factors.npz"
COMMUNITIES_FILE = "communities.npz"
NEIGHBOURS_FILE = "neighbours.json"

_Saved = Mapping[str, NDArray[Any]]


def learned_files(learned: LearnedSources) -> dict[str, bytes]:
    """Files of a bundle, by name; none for sources that are not there."""
    files = {}
    if (table := learned.table) is not None:
        files[TABLE_FILE] = _packed(
            table.item_ids,
            starts=table.starts,
            columns=table.columns,
            values=table.values.astype(np.float16),
            decay=table.decay,
        )
    if (model := learned.factors) is not None:
        files[FACTORS_FILE] = _packed(
            model.item_ids,
            factors=model.factors,
            regularization=model.regularization,
            confidence=model.confidence,
            decay=model.decay,
        )
    if (groups := learned.communities) is not None:
        files[COMMUNITIES_FILE] = _packed(
            groups.item_ids,
            centres=groups.centres,
            mean=groups.mean,
            fingerprint=np.frombuffer(groups.fingerprint.encode(), np.uint8),
            starts=groups.starts,
            items=groups.items,
            values=groups.values,
            of_likes=groups.of_likes,
        )
    if learned.neighbours_decay is not None:
        files[NEIGHBOURS_FILE] = json.dumps({"decay": learned.neighbours_decay}).encode()
    return files


def learned_sources(files: Mapping[str, bytes]) -> LearnedSources:
    """What the files of a bundle describe.

    Raises:
        BundleUnusable: One is damaged.
    """
    try:
        return LearnedSources(
            _table(files[TABLE_FILE]) if TABLE_FILE in files else None,
            _factors(files[FACTORS_FILE]) if FACTORS_FILE in files else None,
            _communities(files[COMMUNITIES_FILE]) if COMMUNITIES_FILE in files else None,
            float(json.loads(files[NEIGHBOURS_FILE])["decay"]) if NEIGHBOURS_FILE in files else None,
        )
    except Exception as error:
        raise BundleUnusable(f"the learned sources cannot be read: {error}") from None


def _table(content: bytes) -> ItemTable:
    ids, rows, saved = _unpacked(content)
    return ItemTable(
        ids, rows, saved["starts"], saved["columns"], saved["values"].astype(np.float32), float(saved["decay"])
    )


def _factors(content: bytes) -> ItemFactors:
    ids, rows, saved = _unpacked(content)
    numbers = (float(saved[name]) for name in ("regularization", "confidence", "decay"))
    return ItemFactors(ids, rows, saved["factors"], *numbers)


def _communities(content: bytes) -> Communities:
    ids, rows, saved = _unpacked(content)
    fingerprint = saved["fingerprint"].tobytes().decode()
    return Communities(
        saved["centres"],
        saved["mean"],
        fingerprint,
        ids,
        rows,
        saved["starts"],
        saved["items"],
        saved["values"],
        bool(saved["of_likes"]),
    )


def _packed(item_ids: Sequence[str], **arrays: object) -> bytes:
    out = io.BytesIO()
    ids = np.frombuffer("\n".join(item_ids).encode(), np.uint8)
    np.savez(out, item_ids=ids, **{name: np.asarray(array) for name, array in arrays.items()})  # type: ignore[arg-type]
    return out.getvalue()


def _unpacked(content: bytes) -> tuple[list[str], dict[str, int], _Saved]:
    with np.load(io.BytesIO(content), allow_pickle=False) as saved:
        arrays = {name: saved[name] for name in saved.files}
    ids = arrays.pop("item_ids").tobytes().decode().split("\n")
    return ids, {item_id: row for row, item_id in enumerate(ids)}, arrays
