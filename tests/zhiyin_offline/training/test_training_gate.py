"""A bundle that is significantly worse than the one that serves does not take over by itself; any other may."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ranking_service.attribute_features.asker import Asker
from ranking_service.bundles.bundle import RANKER_FILE, Manifest, Serves, write_bundle
from ranking_service.scorers.features import NAMES, SOURCES
from tests.zhiyin_offline.evaluation.recorded import purchases
from tests.zhiyin_offline.training.planted import planted
from zhiyin_offline.training.choice import Choice, Contender, choose, judge
from zhiyin_offline.training.examples import Example, Floats
from zhiyin_offline.training.gate import Verdict, compare_with_serving
from zhiyin_offline.training.ranker import train_ranker
from zhiyin_offline.training.train import Trained

EXAMPLES = planted(150, {"history": 2.0})
GOOD = {"history": 1.0}


def weights_of(named: dict[str, float]) -> Floats:
    return np.array([named.get(kind.name.lower(), 0.0) for kind in SOURCES], np.float32)


def trained(named: dict[str, float], examples: list[Example] | None = None) -> Trained:
    """A new bundle that serves these weights."""
    examples = EXAMPLES if examples is None else examples
    weights = weights_of(named)
    best = Contender("learned weights", "blend", *judge(examples, lambda example: example.blend(weights)))
    manifest = Manifest("new", "default", 2e9, "blend", named)
    return Trained(manifest, {}, Choice(best, weights, None, (best,), 1.0), examples, None)


def compare(folder: Path, new: Trained) -> Verdict:
    """The verdict; of these examples nobody knows the items."""
    return compare_with_serving(folder, new, purchases([], 0))


def serve(folder: Path, serves: Serves, named: dict[str, float], files: dict[str, bytes] | None = None) -> Path:
    """A bundle that serves."""
    manifest = Manifest("old", "default", 1e9, serves, named, feature_names=NAMES)
    write_bundle(folder, manifest, files or {})
    (folder / "active").write_text("old\n")
    return folder / "old"


def test_a_worse_bundle_does_not_take_over_and_the_text_says_by_how_much(tmp_path: Path) -> None:
    serve(tmp_path, "blend", GOOD)
    verdict = compare(tmp_path, trained({"popular": 1.0}))
    assert verdict.worse
    assert "old" in verdict.text
    assert "ndcg@10 -0." in verdict.text


def test_a_better_one_takes_over(tmp_path: Path) -> None:
    serve(tmp_path, "blend", {"popular": 1.0})
    verdict = compare(tmp_path, trained(GOOD))
    assert not verdict.worse
    assert "ndcg@10 +0." in verdict.text


def test_one_that_is_the_same_takes_over(tmp_path: Path) -> None:
    serve(tmp_path, "blend", GOOD)
    assert not compare(tmp_path, trained(GOOD)).worse


def test_a_difference_within_its_noise_is_no_reason_to_refuse(tmp_path: Path) -> None:
    serve(tmp_path, "blend", GOOD)
    slightly = {"history": 1.0, "popular": 0.06}
    new, old = trained(slightly), trained(GOOD)
    assert new.choice.best.ndcg.mean() < old.choice.best.ndcg.mean()
    assert not compare(tmp_path, new).worse


def test_the_ranker_that_serves_is_compared_as_it_serves(tmp_path: Path) -> None:
    # It orders the right way what the new bundle gets wrong.
    model = train_ranker(EXAMPLES, weights_of(GOOD), 0)
    assert model is not None
    serve(tmp_path, "ranker", GOOD, {RANKER_FILE: model.encode()})
    assert compare(tmp_path, trained({"popular": 1.0})).worse


def ranker_that_serves(folder: Path, found: float, error: float, until: float) -> None:
    """A ranker that has learned all examples by heart, with its figures out of fold and the end of its record."""
    model = train_ranker(EXAMPLES, weights_of(GOOD), 0)
    assert model is not None
    metrics, evidence = {"ndcg@10": found, "ndcg@10_error": error}, {"record_until": until}
    old = Manifest("old", "default", 1e9, "ranker", GOOD, feature_names=NAMES, metrics=metrics, evidence=evidence)
    write_bundle(folder, old, {RANKER_FILE: model.encode()})
    (folder / "active").write_text("old\n")


def test_a_ranker_that_knows_the_cases_by_heart_does_not_keep_its_successor_out(tmp_path: Path) -> None:
    new = trained({"history": 1.0, "popular": 0.3})
    own = float(new.choice.best.ndcg.mean())
    ranker_that_serves(tmp_path, own, 0.01, until=1e9)
    verdict = compare(tmp_path, new)
    assert not verdict.worse
    assert "by what each found out of fold" in verdict.text
    ranker_that_serves(tmp_path / "better", own + 0.3, 0.01, until=1e9)
    assert compare(tmp_path / "better", new).worse


def test_what_came_after_a_ranker_s_record_decides_where_there_is_enough_of_it(tmp_path: Path) -> None:
    ranker_that_serves(tmp_path, 0.0, 0.01, until=1e9)
    later = [replace(example, asker=Asker(now=2e9)) for example in EXAMPLES]
    verdict = compare(tmp_path, trained({"popular": 1.0}, later))
    assert verdict.worse
    assert f"on {len(later)} cases after its record" in verdict.text


def test_the_house_that_serves_by_a_bundle_is_compared(tmp_path: Path) -> None:
    serve(tmp_path, "builtin", {})
    right = [replace(example, builtin=example.blend(weights_of(GOOD))) for example in EXAMPLES]
    assert compare(tmp_path, trained({"popular": 1.0}, right)).worse
    wrong = [replace(example, builtin=np.zeros_like(example.builtin)) for example in EXAMPLES]
    assert not compare(tmp_path, trained(GOOD, wrong)).worse


@pytest.mark.parametrize("state", ["no folder", "nothing active", "builtin"])
def test_where_no_bundle_serves_the_new_one_is_compared_with_the_house(tmp_path: Path, state: str) -> None:
    folder = tmp_path / "default"
    if state != "no folder":
        serve(folder, "blend", GOOD)
        (folder / "active").unlink()
    if state == "builtin":
        (folder / "active").write_text("builtin\n")
    right = [replace(example, builtin=example.blend(weights_of(GOOD))) for example in EXAMPLES]
    verdict = compare(folder, trained({"popular": 1.0}, right))
    assert verdict.worse
    assert "against builtin, which serves" in verdict.text
    assert not compare(folder, trained(GOOD)).worse


@pytest.mark.parametrize("state", ["damaged", "ranker gone", "other features"])
def test_beside_a_bundle_that_cannot_be_compared_the_new_one_may_serve(tmp_path: Path, state: str) -> None:
    model = train_ranker(EXAMPLES, weights_of(GOOD), 0) or ""
    old = serve(tmp_path, "ranker", GOOD, {RANKER_FILE: model.encode()})
    if state == "damaged":
        (old / "manifest.json").write_text("{")
    elif state == "ranker gone":
        (old / RANKER_FILE).write_bytes(b"something else")
    else:
        manifest = json.loads((old / "manifest.json").read_text())
        (old / "manifest.json").write_text(json.dumps({**manifest, "feature_names": ["other"]}))
    verdict = compare(tmp_path, trained({"popular": 1.0}))
    assert not verdict.worse
    assert "nothing to compare with: bundle old" in verdict.text


def test_what_was_chosen_from_the_same_cases_never_fails_against_a_single_source(tmp_path: Path) -> None:
    choice = choose(EXAMPLES, seed=0)
    manifest = Manifest("new", "default", 2e9, choice.best.serves)
    new = Trained(manifest, {}, choice, EXAMPLES, None)
    for kind in SOURCES:
        folder = tmp_path / kind.name
        serve(folder, "blend", {kind.name.lower(): 1.0})
        assert not compare(folder, new).worse
