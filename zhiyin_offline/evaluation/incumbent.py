"""The lists of a present system, read from a file and judged like any other method."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.methods import Lists
from zhiyin_offline.evaluation.protocols import Case, Split, done_with
from zhiyin_offline.rows.row_errors import ImportFailed


def read_incumbent(path: Path) -> dict[str, list[str]]:
    """Item ids, best first, by user id.

    Raises:
        ImportFailed: The file cannot be read, or a line is not `{"user_id": TEXT, "item_ids": [TEXT, ...]}`.
    """
    lists: dict[str, list[str]] = {}
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as exc:
        raise ImportFailed(f"{path}: {exc}") from exc
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            user_id, item_ids = row["user_id"], row["item_ids"]
        except (ValueError, KeyError, TypeError):
            user_id, item_ids = None, None
        if not isinstance(user_id, str) or not _texts(item_ids):
            raise ImportFailed(f'{path}, line {number}: expected {{"user_id": TEXT, "item_ids": [TEXT, ...]}}')
        if user_id in lists:
            raise ImportFailed(f"{path}, line {number}: a second list for user {user_id!r}")
        lists[user_id] = item_ids
    return lists


def cases_without_list(lists: dict[str, list[str]], dataset: Dataset, cases: Sequence[Case]) -> int:
    """How many cases are of users whom no list is for."""
    return sum(dataset.user_ids[case.user] not in lists for case in cases)


class Incumbent:
    """A method that answers from a file: the same list for all cases of a user, and an empty one where there is none.

    What the others leave out (items that the user is done with, repeated ids) is left out here too, and what follows
    moves up: the system is not charged for a filter that its caller may apply later.

    Args:
        lists: Item ids, best first, by user id.
    """

    name = "incumbent"

    def __init__(self, lists: dict[str, list[str]]) -> None:
        self._lists = lists

    def fit(self, dataset: Dataset, split: Split) -> None:
        """Looks items up; ids that the catalogue does not hold are left out."""
        numbers = dataset.item_numbers
        self._numbers = {
            user_id: list(dict.fromkeys(numbers[item_id] for item_id in item_ids if item_id in numbers))
            for user_id, item_ids in self._lists.items()
        }
        self._dataset, self._include_history, self._done = dataset, split.include_history, done_with(dataset)

    def rank(self, cases: Sequence[Case], k: int) -> Lists:
        """The first k of each list."""
        out = np.full((len(cases), k), -1, dtype=np.int32)
        for row, case in enumerate(cases):
            listed = self._numbers.get(self._dataset.user_ids[case.user], [])
            if not self._include_history:
                done = set(self._dataset.events.item[case.history[self._done[case.history]]].tolist())
                listed = [item for item in listed if item not in done]
            out[row, : len(listed[:k])] = listed[:k]
        return out


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(part, str) for part in value)
