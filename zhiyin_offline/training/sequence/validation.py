"""How well a model ranks what users did next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from zhiyin_offline.training.sequence.batches import Items
from zhiyin_offline.training.sequence.model import UserTransformer

_USERS_AT_ONCE = 256


@dataclass(frozen=True)
class ValidationCases:
    """Users and what they did next.

    Attributes:
        histories: Items, oldest first; not empty.
        targets: The item that came next, shape (cases,).
    """

    histories: Sequence[Items]
    targets: Items

    def sample(self, count: int, seed: int) -> ValidationCases:
        """These cases, or a random part of them where there are more than `count`; those without a history left out."""
        usable = np.flatnonzero([len(history) > 0 for history in self.histories])
        if len(usable) > count:
            usable = np.sort(np.random.default_rng(seed).choice(usable, count, replace=False))
        return ValidationCases([self.histories[i] for i in usable.tolist()], self.targets[usable])


def target_ranks(
    model: UserTransformer, item_vectors: Tensor, known: Tensor, cases: ValidationCases
) -> NDArray[np.int64]:
    """The rank of each target among all items, the history left out; 1 is best, equal scores share their mean rank.

    Args:
        model: In evaluation mode.
        item_vectors: Shape (items, d).
        known: Items that have a vector, shape (items,); the others come last.
        cases: Histories may name unknown items.
    """
    ranks = np.empty(len(cases.histories), np.int64)
    limit = len(model.positions)
    order = np.argsort([min(len(history), limit) for history in cases.histories], kind="stable")
    for start in range(0, len(order), _USERS_AT_ONCE):
        rows = order[start : start + _USERS_AT_ONCE]
        histories = [cases.histories[row] for row in rows.tolist()]
        targets = torch.from_numpy(cases.targets[rows].astype(np.int64)).to(item_vectors.device)[:, None]
        scores = last_states(model, item_vectors, [history[-limit:] for history in histories]) @ item_vectors.T
        scores.masked_fill_(~known, -torch.inf)
        own = scores.gather(1, targets)
        seen = np.concatenate(histories).astype(np.int64)
        users = np.repeat(np.arange(len(rows)), [len(history) for history in histories])
        scores[torch.from_numpy(users), torch.from_numpy(seen)] = -torch.inf
        scores.scatter_(1, targets, own)
        better, equal = (scores > own).sum(1), (scores == own).sum(1) - 1
        ranks[rows] = (1 + better + equal // 2).cpu().numpy()
    return ranks


def last_states(model: UserTransformer, item_vectors: Tensor, histories: Sequence[Items]) -> Tensor:
    """User vectors after the latest item, shape (histories, d). Histories are not empty and not too long."""
    lengths = np.array([len(history) for history in histories])
    padded = np.zeros((len(histories), int(lengths.max())), np.int64)
    for row, history in zip(padded, histories, strict=True):
        row[: len(history)] = history
    device = item_vectors.device
    states = model(item_vectors[torch.from_numpy(padded).to(device)])
    last: Tensor = states[torch.arange(len(histories)), torch.from_numpy(lengths - 1)]
    return last


def ndcg(ranks: NDArray[np.int64], depth: int = 10) -> float:
    """NDCG with one relevant item a case, its mean."""
    return float(np.where(ranks <= depth, 1 / np.log2(ranks + 1), 0.0).mean()) if len(ranks) else 0.0


def recall(ranks: NDArray[np.int64], depth: int = 10) -> float:
    """Share of cases whose target is among the first."""
    return float((ranks <= depth).mean()) if len(ranks) else 0.0
