"""An item-to-item table: how much having chosen one item speaks for another. Item-based collaborative filtering.

    score(j) = sum over the user's items i, latest first, of  decay^place(i) * table(i, j)

The rows are learned (EASE, Steck 2019, or shrunk cosines), the user side is made of the events of this second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ranking_service.candidate import Floats, Ints

# Items whose weight has fallen below this say nothing any more.
_LEAST_WEIGHT = 1e-2


@dataclass(frozen=True)
class ItemTable:
    """A sparse matrix by row, and what its rows and columns are.

    Attributes:
        item_ids: By row and by column. Length n.
        rows: Row by item id.
        starts: Where each row begins in `columns` and `values`, and where the last ends. Shape (n + 1,).
        columns: Items that a row speaks for, each once in a row.
        values: How much, above 0.
        decay: Weight of an item of the history by the weight of the item after it, in (0, 1].
    """

    item_ids: Sequence[str]
    rows: Mapping[str, int]
    starts: NDArray[np.int64]
    columns: Ints
    values: Floats
    decay: float

    def scores(self, latest_first: Sequence[str]) -> Floats | None:
        """What the items of a history say together of every item, shape (n,); None when the table knows none."""
        rows, weights, weight = [], [], 1.0
        for item_id in latest_first:
            row = self.rows.get(item_id)
            if row is not None:
                rows.append(row)
                weights.append(weight)
            weight *= self.decay
            if weight < _LEAST_WEIGHT:
                break
        if not rows:
            return None
        # All rows at once: adding one after the other would take ten times as long.
        parts = [slice(self.starts[row], self.starts[row + 1]) for row in rows]
        said = np.repeat(np.array(weights, np.float32), [part.stop - part.start for part in parts])
        said *= np.concatenate([self.values[part] for part in parts])
        columns = np.concatenate([self.columns[part] for part in parts])
        return np.bincount(columns, weights=said, minlength=len(self.item_ids)).astype(np.float32)
