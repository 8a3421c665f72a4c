"""What a training makes of the diversity knob."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ranking_service.diversity.knob import HOUSE_KNOB
from ranking_service.query import DEFAULT_DIVERSITY
from tests.zhiyin_offline.evaluation.recorded import generated
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.in_process import RecordedService
from zhiyin_offline.evaluation.memory_catalog import SEMANTIC, MemoryCatalog, semantic_space
from zhiyin_offline.evaluation.metrics.variety import vector_diversity
from zhiyin_offline.evaluation.protocols import leave_one_out
from zhiyin_offline.training.knob_step import KnobChoice, choose_knob


def service_over(dataset: Dataset, vectors: np.ndarray) -> RecordedService:
    space = semantic_space(vectors, "test")
    service = RecordedService(dataset, MemoryCatalog(dataset.items, {SEMANTIC: space}))
    service.statistics.fold(leave_one_out(dataset).training)
    return service


def chosen(dataset: Dataset, vectors: np.ndarray, cases: int) -> KnobChoice:
    rows = semantic_space(vectors, "test").rows
    return choose_knob(service_over(dataset, vectors), dataset, rows, leave_one_out(dataset).cases[:cases])


def test_the_default_then_gives_a_tenth_more_variety_and_says_at_what_price() -> None:
    dataset, vectors = generated(users=200, items=200, topics=8)
    choice = chosen(dataset, vectors, 200)
    alone, at_knob = choice.evidence.values()
    assert at_knob["diversity@10"] >= 1.1 * alone["diversity@10"]
    assert at_knob["category_diversity@10"] >= 1.1 * alone["category_diversity@10"]
    service = service_over(dataset, vectors)
    service.bundle = replace(service.bundle, knob=choice.knob)
    rows = semantic_space(vectors, "test").rows
    cases = leave_one_out(dataset).cases
    plain, served = (
        float(np.nanmean(vector_diversity(service.lists(cases, 10, diversity), rows)))
        for diversity in (0.0, DEFAULT_DIVERSITY)
    )
    assert served >= 1.08 * plain
    assert served == pytest.approx(at_knob["diversity@10"], rel=0.05)


def test_the_same_record_gives_the_same_knob() -> None:
    dataset, vectors = generated(users=150)
    assert chosen(dataset, vectors, 120) == chosen(dataset, vectors, 120)


def test_few_cases_say_nothing_and_the_house_s_knob_stays() -> None:
    dataset, vectors = generated(users=60)
    assert chosen(dataset, vectors, 50) == KnobChoice(HOUSE_KNOB, {})


def test_a_catalogue_without_words_and_categories_gets_a_knob_that_costs_nothing() -> None:
    dataset, vectors = generated(users=150)
    bare = replace(dataset, items=tuple(type(item)(id=item.id) for item in dataset.items))
    choice = chosen(bare, np.zeros_like(vectors), 120)
    figures = list(choice.evidence.values())
    assert all(of["ndcg@10"] >= 0.995 * figures[0]["ndcg@10"] for of in figures)


def test_vectors_that_are_as_far_apart_as_can_be_do_not_keep_categories_from_varying() -> None:
    dataset, vectors = generated(users=200, items=200, topics=8)
    apart = np.linalg.qr(np.random.default_rng(0).standard_normal((256, 200)))[0].T.astype(np.float32)
    choice = chosen(dataset, apart[: len(vectors)], 200)
    alone, at_knob = choice.evidence.values()
    assert alone["diversity@10"] > 0.95
    assert at_knob["category_diversity@10"] >= 1.1 * alone["category_diversity@10"]
