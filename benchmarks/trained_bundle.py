"""A bundle with everything that a training can bring, at its usual size and about nothing: for what it costs to serve.

Every learned source speaks, and the learned ranker orders the best 100. The numbers in it are random, which costs as
much as learned ones.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import lightgbm
import numpy as np
import torch
from numpy.typing import NDArray

from ranking_service.bundles.sequence_files import sequence_items, sequence_model
from ranking_service.bundles.serving_bundle import ServingBundle
from ranking_service.learned_sources.communities import Communities
from ranking_service.learned_sources.item_factors import ItemFactors
from ranking_service.learned_sources.item_table import ItemTable
from ranking_service.learned_sources.learned_sources import LearnedSources
from ranking_service.scorers.features import NAMES, SOURCES
from ranking_service.scorers.learned import LearnedScorer
from ranking_service.scorers.tree_ranker import TreeRanker
from zhiyin_offline.training.learned_sources.steps import NEIGHBOURS_DECAY
from zhiyin_offline.training.ranker import DEPTH
from zhiyin_offline.training.sequence.export import GRAPH_FILE, export_user_side
from zhiyin_offline.training.sequence.model import UserTransformer
from zhiyin_offline.training.sequence.settings import SequenceSettings

_SPOKEN_FOR, _FACTORS, _GROUPS, _LIKED_IN_A_GROUP = 200, 64, 16, 200
# As a training grows them, see zhiyin_offline/training/ranker.py.
_TREES, _LEAVES = 150, 7


def trained_bundle(item_ids: Sequence[str], semantic: NDArray[np.float32], fingerprint: str) -> ServingBundle:
    """The bundle for a catalogue.

    Args:
        item_ids: Of the catalogue.
        semantic: The vector of each as the semantic space compares it, shape (items, d).
        fingerprint: Of that space.
    """
    random = np.random.default_rng(11)
    n, d = semantic.shape
    rows = {item_id: row for row, item_id in enumerate(item_ids)}
    learned = LearnedSources(
        table=ItemTable(
            item_ids,
            rows,
            starts=np.arange(n + 1) * _SPOKEN_FOR,
            columns=np.concatenate([random.choice(n, _SPOKEN_FOR, replace=False) for _ in range(n)]).astype(np.int32),
            values=random.random(n * _SPOKEN_FOR, np.float32),
            decay=0.8,
        ),
        factors=ItemFactors(
            item_ids,
            rows,
            factors=random.standard_normal((n, _FACTORS)).astype(np.float32),
            regularization=10.0,
            confidence=20.0,
            decay=0.8,
        ),
        communities=Communities(
            centres=random.standard_normal((_GROUPS, d)).astype(np.float32),
            mean=np.zeros(d, np.float32),
            fingerprint=fingerprint,
            item_ids=item_ids,
            rows=rows,
            starts=np.arange(_GROUPS + 1) * _LIKED_IN_A_GROUP,
            items=random.integers(0, n, _GROUPS * _LIKED_IN_A_GROUP).astype(np.int32),
            values=random.random(_GROUPS * _LIKED_IN_A_GROUP, np.float32),
            of_likes=True,
        ),
        neighbours_decay=NEIGHBOURS_DECAY,
    )
    shape = SequenceSettings()
    projection = random.standard_normal((d, shape.dimensions)).astype(np.float32)
    items = sequence_items(item_ids, semantic @ projection, projection, "benchmark-sequences")
    scorer = LearnedScorer(dict.fromkeys(SOURCES, 1.0), TreeRanker(_trees(random)), DEPTH, new_items=0.5)
    return ServingBundle("benchmark", scorer, sequence_model(_user_side(shape), items, 1), learned)


def _user_side(shape: SequenceSettings) -> bytes:
    torch.manual_seed(11)
    with tempfile.TemporaryDirectory() as folder:
        export_user_side(UserTransformer(shape), Path(folder) / GRAPH_FILE)
        return (Path(folder) / GRAPH_FILE).read_bytes()


def _trees(random: np.random.Generator) -> str:
    columns = random.standard_normal((5_000, len(NAMES)))
    settings = {"objective": "lambdarank", "num_leaves": _LEAVES, "num_threads": 1, "verbose": -1}
    data = lightgbm.Dataset(columns, random.integers(0, 2, len(columns)), group=[DEPTH] * (len(columns) // DEPTH))
    return str(lightgbm.train(settings, data, _TREES).model_to_string())
