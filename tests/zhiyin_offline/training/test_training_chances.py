"""From recorded impressions to the chances that lists tell: near the truth, and blind to what came later."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ranking_service.bundles.loading import serving_bundle
from ranking_service.bundles.serving_bundle import ServingBundle
from ranking_service.pipeline import Judged
from ranking_service.scorers.learned import LearnedScorer
from ranking_service.selectors.slate import Slate
from tests.zhiyin_offline.training.shown_world import (
    DAY,
    DAYS,
    FINGERPRINT,
    START,
    ShownWorld,
    shown_world,
)
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin_offline.evaluation.baselines.all_baselines import MakeMethod, baselines
from zhiyin_offline.evaluation.dataset import Dataset, EventRows
from zhiyin_offline.evaluation.evaluation import evaluate
from zhiyin_offline.evaluation.impressions import Moment, impressions, moments
from zhiyin_offline.evaluation.in_process import RecordedService
from zhiyin_offline.evaluation.memory_catalog import SEMANTIC, MemoryCatalog, semantic_space
from zhiyin_offline.evaluation.protocols import Case, sample_users, time_split, user_rows
from zhiyin_offline.evaluation.report.as_html import page
from zhiyin_offline.evaluation.report.as_json import report
from zhiyin_offline.evaluation.zhiyin_method import ZhiyinMethod
from zhiyin_offline.training.calibration_step import Scored, score_moments, set_aside
from zhiyin_offline.training.train import Trained, restricted, train
from zhiyin_offline.training.training_settings import TrainingSettings

WORLD = shown_world()
PLAIN = TrainingSettings(sequence=False, max_cases=60)
END = START + DAYS * DAY


def learn(world: ShownWorld = WORLD, settings: TrainingSettings = PLAIN) -> Trained:
    return train(world.dataset, world.vectors, FINGERPRINT, "default", settings)


def service_over(dataset: Dataset, bundle: ServingBundle | None = None) -> RecordedService:
    catalog = MemoryCatalog(dataset.items, {SEMANTIC: semantic_space(WORLD.vectors, FINGERPRINT)})
    return RecordedService(dataset, catalog, bundle=bundle)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return learn()


def test_the_bundle_says_how_far_its_chances_are_from_what_happened(trained: Trained) -> None:
    told = trained.manifest.evidence["chances"]
    assert told["serves"]
    assert told["impressions"] > 1_000
    # Candidates are acted on more often than whatever is shown.
    assert WORLD.chances.mean() < told["rate"] < 2 * WORLD.chances.mean()
    assert told["calibration_error"] < 0.025
    assert told["brier"] < told["brier_of_rate"]
    assert sum(row["impressions"] for row in told["reliability"]) == told["impressions"]
    assert trained.manifest.calibration


def test_chances_on_lists_are_near_the_true_rates(trained: Trained) -> None:
    """Of the items that get a chance about alike, about as many are acted on: at the top of the lists, and in all."""
    bundle = serving_bundle(trained.manifest, trained.files)
    service = service_over(WORLD.dataset, bundle)
    service.statistics.fold(np.arange(len(WORLD.dataset.events)))
    by_user = user_rows(WORLD.dataset)
    cases = [Case(user, 0, 0, END, by_user[user]) for user in range(100)]

    def read(slate: Slate) -> list[tuple[float, float]]:
        assert slate.scores.chance is not None
        of_user = WORLD.chances[WORLD.dataset.user_ids.index(slate.taste.state.user_id)]
        truth = of_user[[WORLD.dataset.item_numbers[item.id] for item in slate.items]]
        return [(float(slate.scores.chance[place.row]), float(truth[place.row])) for place in slate.places()]

    lists = service.slates(cases, read)
    top = np.array([pair for made in lists for pair in made[:10]])
    assert top[:, 0].mean() == pytest.approx(top[:, 1].mean(), abs=0.08)
    assert top[:, 0].mean() > 2.5 * WORLD.chances.mean()
    every = np.array([pair for made in lists for pair in made])
    for part in np.array_split(every[np.argsort(every[:, 0], kind="stable")], 5):
        assert part[:, 0].mean() == pytest.approx(part[:, 1].mean(), abs=0.06)


def test_a_record_without_impressions_gives_no_chances_and_loses_no_user() -> None:
    trained = learn(shown_world(impressions=False))
    assert not trained.manifest.calibration
    assert trained.manifest.evidence["chances"] == {}
    assert len(set_aside(shown_world(impressions=False).dataset, 0)) == 0
    service = service_over(WORLD.dataset, serving_bundle(trained.manifest, trained.files))
    service.statistics.fold(np.arange(len(WORLD.dataset.events)))
    by_user = user_rows(WORLD.dataset)

    def none_of(judged: Judged) -> bool:
        return service.bundle.scorer.score(judged.taste, judged.pool, judged.opinions).chance is None

    assert all(service.judge([Case(user, 0, 0, END, by_user[user]) for user in range(5)], none_of))


def test_scores_that_say_nothing_of_what_is_acted_on_give_no_map() -> None:
    """Whatever is shown, one in eight is acted on."""
    events = WORLD.dataset.events
    random = np.random.default_rng(5)
    rows = EventRows(WORLD.dataset.item_numbers)
    for row in np.flatnonzero(events.shown >= 0).tolist():
        user, item_id, time = int(events.user[row]), WORLD.dataset.item_ids[events.shown[row]], float(events.time[row])
        rows.add(user, item_id, pb.EVENT_TYPE_IMPRESSION, None, time)
        if random.random() < 0.125:
            rows.add(user, item_id, pb.EVENT_TYPE_LIKE, None, time + random.uniform(1, 600))
    trained = learn(replace(WORLD, dataset=replace(WORLD.dataset, events=rows.events())))
    assert trained.manifest.evidence["chances"]["impressions"] > 1_000
    assert not trained.manifest.evidence["chances"]["serves"]
    assert not trained.manifest.calibration


def test_an_evaluation_tells_how_good_the_chances_were_on_what_was_shown_later() -> None:
    split = time_split(WORLD.dataset)
    before = replace(WORLD, dataset=restricted(WORLD.dataset, split.training))
    bundle = learn(before, replace(PLAIN, protocol="time-split"))
    methods: dict[str, MakeMethod] = {
        "zhiyin": lambda seed: ZhiyinMethod(WORLD.vectors, FINGERPRINT, seed, trainings={0: bundle}),
        "popularity": baselines(WORLD.vectors)["popularity"],
    }
    few = sample_users(split, 40)
    made = report(evaluate(WORLD.dataset, few, methods, WORLD.vectors), {"name": "shown"}, {}, {}, [])
    assert list(made["chances"]) == ["zhiyin"]
    told = made["chances"]["zhiyin"]
    assert list(told) == ["in_training", "later"]
    later = told["later"]
    assert later["impressions"] > 500
    assert later["calibration_error"] < 0.05
    assert later["brier"] < later["brier_of_rate"]
    assert sum(row["impressions"] for row in later["reliability"]) == later["impressions"]
    html = page(made | {"dataset": {"name": "shown", "users": 1, "items": 1, "events": 1}})  # type: ignore[arg-type]
    assert "share acted on" in html
    assert f"{later['calibration_error']:.4f}" in html


# Leaks.


def scored(dataset: Dataset, shown: list[Moment]) -> Scored:
    service = service_over(dataset)
    service.bundle = replace(service.bundle, scorer=LearnedScorer(None, None, 100))
    return score_moments(service, dataset, shown)


def test_what_happens_after_a_moment_changes_no_score_of_it() -> None:
    """Of users who are set aside and of everybody else: later clicks change outcomes, not scores."""
    aside = set_aside(WORLD.dataset, 0)
    middle = START + (DAYS // 2) * DAY
    random = np.random.default_rng(1)
    planted = [
        (int(user), int(random.integers(len(WORLD.dataset.items))), middle + float(random.uniform(0, 3 * DAY)))
        for user in (*np.repeat(aside, 20), *range(100))
    ]
    other = shown_world(planted=planted).dataset
    before, after = (
        [m for m in moments(d, impressions(d), aside.tolist()) if m.case.now < middle][-60:]
        for d in (WORLD.dataset, other)
    )
    assert len(before) == 60
    one, two = scored(WORLD.dataset, before), scored(other, after)
    assert len(one.scores) > 300
    assert np.array_equal(one.scores, two.scores)
    assert not np.array_equal(one.acted, two.acted)
    assert np.array_equal(one.users, two.users)


def test_nothing_is_learned_from_those_who_are_set_aside(trained: Trained) -> None:
    """They do a lot more: nothing that is chosen, and no figure of a contender, moves."""
    aside = set_aside(WORLD.dataset, PLAIN.seed)
    assert 0 < len(aside) <= 0.1 * len(WORLD.dataset.user_ids)
    random = np.random.default_rng(2)
    planted = [
        (int(user), int(random.integers(len(WORLD.dataset.items))), START + float(random.uniform(0, 11)) * DAY)
        for user in np.repeat(aside, 15)
    ]
    busier = shown_world(planted=planted)
    assert np.array_equal(set_aside(busier.dataset, PLAIN.seed), aside)
    other = learn(busier)
    for part in ("contenders", "chosen", "cases", "new_items", "diversity", "sources"):
        assert other.manifest.evidence[part] == trained.manifest.evidence[part], part
    assert other.manifest.weights == trained.manifest.weights
    assert other.manifest.evidence["chances"] != trained.manifest.evidence["chances"]


def test_an_evaluation_hands_out_no_outcome_that_it_holds_back() -> None:
    split_rows = np.flatnonzero(WORLD.dataset.events.time < START + 6 * DAY)
    seen = restricted(WORLD.dataset, split_rows)
    known, all_known = impressions(seen), impressions(WORLD.dataset)
    outcome = dict(zip(all_known.row.tolist(), all_known.acted.tolist(), strict=True))
    assert len(known) > 1_000
    assert [outcome[int(split_rows[row])] for row in known.row.tolist()] == known.acted.tolist()
