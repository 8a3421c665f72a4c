"""What is learned from is what the service sees at the moment of the case, and what is learned is what it serves."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from ranking_service.candidate import SourceKind
from ranking_service.pipeline import Judged
from ranking_service.scorers.features import NAMES, SOURCES, features
from ranking_service.scorers.learned import LearnedScorer
from ranking_service.scorers.tree_ranker import TreeRanker
from tests.zhiyin_offline.training.chain_world import FINGERPRINT, HOUR, START, STEPS, chain_vectors, chain_world
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin_offline.evaluation.dataset import Dataset, EventRows
from zhiyin_offline.evaluation.in_process import RecordedService
from zhiyin_offline.evaluation.memory_catalog import SEMANTIC, MemoryCatalog, semantic_space
from zhiyin_offline.evaluation.protocols import Case, Split, leave_one_out, time_split
from zhiyin_offline.training.blend_table import BlendTable
from zhiyin_offline.training.examples import Example, collect
from zhiyin_offline.training.fusion import fit_weights
from zhiyin_offline.training.ranker import DEPTH, best_of, ranked, train_ranker

WORLD = chain_world()
VECTORS = chain_vectors(WORLD)
Protocol = Literal["leave-one-out", "time-split"]


def service_of(dataset: Dataset, learned_from: NDArray[np.int64]) -> RecordedService:
    catalog = MemoryCatalog(dataset.items, {SEMANTIC: semantic_space(VECTORS, FINGERPRINT)})
    service = RecordedService(dataset, catalog)
    service.statistics.fold(learned_from)
    return service


def split_of(dataset: Dataset, protocol: Protocol) -> Split:
    return leave_one_out(dataset) if protocol == "leave-one-out" else time_split(dataset)


def collected(dataset: Dataset, split: Split, cases: tuple[Case, ...] | None = None) -> list[Example]:
    return collect(service_of(dataset, split.training), dataset, cases or split.cases, lambda _: None)


def same(one: Example, other: Example) -> bool:
    """Everything but the target."""
    parts = ("opinions", "nudge", "builtin", "columns")
    return all(np.array_equal(getattr(one, part), getattr(other, part), equal_nan=True) for part in parts)


@pytest.fixture(scope="module")
def examples() -> list[Example]:
    return collected(WORLD, leave_one_out(WORLD))


def test_each_case_gives_its_candidates_and_where_the_target_is(examples: list[Example]) -> None:
    split = leave_one_out(WORLD)
    service = service_of(WORLD, split.training)
    pools = service.judge(split.cases, lambda judged: judged.pool.ids)
    assert len(examples) == len(split.cases) > 90
    for case, example, ids in zip(split.cases, examples, pools, strict=True):
        assert example.opinions.shape == (len(ids), len(SOURCES))
        assert example.columns.shape == (len(ids), len(NAMES))
        assert np.isfinite(example.opinions).all()
        target = WORLD.item_ids[case.target]
        assert example.target == (ids.index(target) if target in ids else -1)
        liked = {WORLD.item_ids[i] for i in WORLD.events.item[case.history]}
        assert not liked & set(ids)  # what somebody has is no negative
    assert np.mean([example.target >= 0 for example in examples]) > 0.9


def test_a_target_that_no_source_finds_is_told_as_such() -> None:
    split = leave_one_out(WORLD)
    case = split.cases[0]
    hidden = replace(case, target=int(WORLD.events.item[case.history[-1]]))  # the user has it: it cannot be found
    (example,) = collected(WORLD, split, (hidden,))
    assert example.target == -1


def test_sources_that_were_not_asked_are_zero_and_the_others_are_heard(examples: list[Example]) -> None:
    heard = {SOURCES[column] for example in examples for column in np.flatnonzero(example.opinions.any(axis=0))}
    assert {SourceKind.HISTORY, SourceKind.TRANSITION, SourceKind.POPULAR} <= heard
    assert not heard & {SourceKind.QUERY, SourceKind.PROFILE, SourceKind.SEQUENCE}


@pytest.mark.parametrize("protocol", ["leave-one-out", "time-split"])
def test_what_happens_in_the_future_changes_no_example(protocol: Protocol) -> None:
    """Everybody's targets and later events become others; of each case only its own target may change."""
    split = split_of(WORLD, protocol)
    before = collected(WORLD, split)
    events, random = WORLD.events, np.random.default_rng(0)
    later = np.setdiff1d(np.arange(len(events)), split.training)
    item = events.item.copy()
    item[later] = random.integers(0, len(WORLD.items), len(later))
    changed = replace(WORLD, events=replace(events, item=item))
    after = collected(changed, split, tuple(case for case in split.cases))
    if protocol == "leave-one-out":
        assert all(map(same, before, after))
        return
    # In a time split some later event of the same user is another case's history: those before any are the same.
    untouched = [np.isin(case.history, split.training).all() for case in split.cases]
    assert sum(untouched) > 10
    assert all(same(*pair) for pair, clean in zip(zip(before, after, strict=True), untouched, strict=True) if clean)


@pytest.mark.parametrize("protocol", ["leave-one-out", "time-split"])
def test_an_event_planted_in_the_future_changes_no_example(protocol: Protocol) -> None:
    """A thousand purchases of one item by somebody new, after everything else."""
    split = split_of(WORLD, protocol)
    rows = EventRows(WORLD.item_numbers)
    for user, item, time in zip(WORLD.events.user, WORLD.events.item, WORLD.events.time, strict=True):
        rows.add(int(user), WORLD.item_ids[item], pb.EVENT_TYPE_LIKE, None, float(time))
    for number in range(1_000):
        rows.add(len(WORLD.user_ids), "i7", pb.EVENT_TYPE_PURCHASE, None, START + 100 * STEPS * HOUR + number)
    planted = replace(WORLD, user_ids=(*WORLD.user_ids, "planted"), events=rows.events())
    assert all(map(same, collected(WORLD, split), collected(planted, split)))


def test_the_service_scores_as_the_training_did(examples: list[Example]) -> None:
    """The same candidates, the same features (to half precision), the same order from the learned ranker."""
    split = leave_one_out(WORLD)
    weights = fit_weights(BlendTable.of(examples))
    model = train_ranker(examples, weights, seed=0)
    assert model is not None
    trees = TreeRanker(model)
    named = {kind: float(weight) for kind, weight in zip(SOURCES, weights, strict=True)}

    def serve(judged: Judged) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
        blend = LearnedScorer(named, None, DEPTH).score(judged.taste, judged.pool, judged.opinions).total
        total = LearnedScorer(named, trees, DEPTH).score(judged.taste, judged.pool, judged.opinions).total
        return blend, total, features(judged.taste, judged.pool, judged.opinions, blend)

    served = service_of(WORLD, split.training).judge(split.cases, serve)
    equal = []
    for example, (blend, total, table) in zip(examples, served, strict=True):
        assert np.allclose(example.blend(weights), blend, atol=1e-4)
        every = np.arange(len(blend))
        assert np.allclose(example.features(every, example.blend(weights)), table, rtol=2e-3, atol=1e-3, equal_nan=True)
        assert np.array_equal(np.isnan(example.columns), np.isnan(table))
        equal.append(np.array_equal(np.argsort(-ranked(example, weights, trees))[:10], np.argsort(-total)[:10]))
    assert np.mean(equal) > 0.9  # half precision moves a value across a threshold now and then


def test_half_precision_holds_what_the_features_say(examples: list[Example]) -> None:
    for example in examples:
        assert not np.isinf(example.columns).any()
        assert len(best_of(example.builtin)) == min(DEPTH, len(example.builtin))


def test_collecting_tells_how_far_it_is() -> None:
    said: list[int] = []
    split = leave_one_out(WORLD)
    collect(service_of(WORLD, split.training), WORLD, split.cases[:1] * 260, said.append)
    assert said == [250, 260]
