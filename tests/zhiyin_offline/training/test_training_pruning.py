"""Optional sources serve only where they help."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ranking_service.candidate import SourceKind
from ranking_service.scorers.features import NAMES, SOURCES
from tests.zhiyin_offline.training.planted import COLUMN, planted
from zhiyin_offline.training.examples import Example
from zhiyin_offline.training.pruning import without, worth_keeping

OPTIONAL = (SourceKind.FACTORS, SourceKind.COMMUNITY, SourceKind.NEIGHBOURS, SourceKind.COLLABORATIVE)
QUIET = ("query", "profile", "fresh", "sequence", "popular")


def proposed(example: Example, *rows_and_kinds: tuple[int, tuple[SourceKind, ...]]) -> Example:
    proposers = np.full(len(example.nudge), 1 << SourceKind.HISTORY, np.int64)
    for row, kinds in rows_and_kinds:
        proposers[row] = sum(1 << kind for kind in kinds)
    return replace(example, proposers=proposers)


def test_a_source_that_says_nothing_new_goes_and_one_that_decides_stays() -> None:
    examples = planted(300, {"history": 1.0, "collaborative": 1.5}, silent=(*QUIET, "factors"))
    less, kept = worth_keeping(examples, OPTIONAL, seed=0)
    assert SourceKind.COLLABORATIVE in kept
    assert SourceKind.FACTORS not in kept  # it was silent from the start
    assert not {SourceKind.COMMUNITY, SourceKind.NEIGHBOURS} & set(kept)
    for example in less:
        assert not example.opinions[:, [COLUMN["community"], COLUMN["neighbours"]]].any()
        assert example.opinions[:, COLUMN["collaborative"]].any()


def test_two_sources_that_say_the_same_do_not_both_serve() -> None:
    examples = []
    for example in planted(300, {"history": 1.0, "collaborative": 1.5}, silent=(*QUIET, "factors", "community")):
        opinions = example.opinions.copy()
        opinions[:, COLUMN["neighbours"]] = opinions[:, COLUMN["collaborative"]]
        examples.append(replace(example, opinions=opinions))
    _, kept = worth_keeping(examples, OPTIONAL, seed=0)
    assert len({SourceKind.COLLABORATIVE, SourceKind.NEIGHBOURS} & set(kept)) == 1


def test_without_a_source_it_is_as_if_it_had_never_been_asked() -> None:
    (example,) = planted(1, {"history": 1.0})
    own, shared = (example.target + 1) % 40, (example.target + 2) % 40
    example = proposed(example, (own, (SourceKind.FACTORS,)), (shared, (SourceKind.FACTORS, SourceKind.HISTORY)))
    (less,) = without([example], {SourceKind.FACTORS})
    rows = [row for row in range(40) if row != own]
    assert len(less.nudge) == 39
    assert less.target == rows.index(example.target)
    assert not less.opinions[:, COLUMN["factors"]].any()
    others = [column for column in range(len(SOURCES)) if column != COLUMN["factors"]]
    assert np.array_equal(less.opinions[:, others], example.opinions[rows][:, others])
    assert np.isnan(less.columns[:, NAMES.index("factors.z")]).all()
    place, column = rows.index(shared), NAMES.index("proposed_by")
    assert less.columns[place, column] == example.columns[shared, column] - 1
    assert not (less.proposers & (1 << SourceKind.FACTORS)).any()


def test_a_target_that_only_this_source_found_is_lost_without_it() -> None:
    (example,) = planted(1, {"history": 1.0})
    example = proposed(example, (example.target, (SourceKind.FACTORS,)))
    assert without([example], {SourceKind.FACTORS})[0].target == -1
    assert without([example], {SourceKind.COMMUNITY})[0].target == example.target
