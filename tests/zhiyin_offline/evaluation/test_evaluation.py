"""Methods compared, and what is told about it: figures, groups, verdicts, page."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests.zhiyin_offline.evaluation.recorded import RATING, generated, purchases, recorded
from zhiyin.ranking.v1.ranking_service_pb2 import User
from zhiyin_offline.evaluation.baselines.all_baselines import baselines
from zhiyin_offline.evaluation.dataset import Dataset
from zhiyin_offline.evaluation.evaluation import Evaluation, NothingToEvaluate, evaluate
from zhiyin_offline.evaluation.incumbent import Incumbent, cases_without_list, read_incumbent
from zhiyin_offline.evaluation.methods import Lists
from zhiyin_offline.evaluation.metrics.groups import groups, history_buckets
from zhiyin_offline.evaluation.protocols import Case, Split, leave_one_out, time_split
from zhiyin_offline.evaluation.rating_prediction import last_ratings, late_ratings, rating_errors
from zhiyin_offline.evaluation.report.as_html import page
from zhiyin_offline.evaluation.report.as_json import Report, report
from zhiyin_offline.rows.row_errors import ImportFailed

WORLD, VECTORS = generated(seed=2)
SPLIT = leave_one_out(WORLD)


class Told:
    """A method that is told the targets, or answers with anything else that a test wants."""

    name = "told"

    def __init__(self, place: int | None = 0) -> None:
        self._place = place

    def fit(self, dataset: Dataset, split: Split) -> None:
        self._count = len(dataset.items)

    def rank(self, cases: Sequence[Case], k: int) -> Lists:
        out = np.full((len(cases), k), -1, dtype=np.int32)
        for row, case in enumerate(cases):
            others = [item for item in range(self._count) if item != case.target][:k]
            if self._place is not None:
                others = [*others[: self._place], case.target, *others[self._place :]][:k]
            out[row, : len(others)] = others
        return out


def _report(result: Evaluation) -> Report:
    counts = {"name": "world <1>", "users": 150, "items": 90, "events": len(WORLD.events)}
    return report(result, counts, {"seeds": [0]}, {}, ["a note & more"])


@pytest.fixture(scope="module")
def compared() -> Evaluation:
    every = baselines(VECTORS)
    methods = {name: every[name] for name in ("popularity", "text", "ease")}
    return evaluate(WORLD, SPLIT, {**methods, "incumbent": lambda seed: Told(2)}, VECTORS, (0, 1))


def test_a_method_that_is_right_has_the_figures_of_being_right() -> None:
    result = evaluate(WORLD, SPLIT, {"first": lambda seed: Told(0), "never": lambda seed: Told(None)}, VECTORS)
    metrics = _report(result)["metrics"]
    assert [metrics["first"][name] for name in ("recall@5", "ndcg@10", "mrr@20", "hit_rate@10")] == [1, 1, 1, 1]
    assert metrics["first"]["precision@10"] == pytest.approx(0.1)
    assert [metrics["never"][name] for name in ("recall@20", "ndcg@10", "serendipity@10")] == [0, 0, 0]
    assert result.verdicts["first"]["never"]["ndcg@10"].verdict == "win"


def test_the_report_tells_every_method_and_who_is_better(compared: Evaluation) -> None:
    found = _report(compared)
    assert list(found["metrics"]) == ["popularity", "text", "ease", "incumbent"]
    text = json.dumps(found, allow_nan=False)
    assert json.loads(text)["protocol"]["cases"] == len(SPLIT.cases)
    for method in found["metrics"]:
        assert {"recall@10", "ndcg@10", "coverage@10", "gini@10", "diversity@10"} <= set(found["metrics"][method])
        assert found["standard_errors"][method]["ndcg@10"] is not None
    assert found["verdicts"]["ease"]["popularity"]["ndcg@10"]["verdict"] == "win"
    assert found["verdicts"]["popularity"]["ease"]["ndcg@10"]["verdict"] == "lose"
    low, high = found["verdicts"]["ease"]["popularity"]["ndcg@10"]["interval"]
    assert 0 < low < found["verdicts"]["ease"]["popularity"]["ndcg@10"]["difference"] < high
    assert found["seed_standard_errors"]["popularity"]["ndcg@10"] is not None


def test_the_incumbent_gets_a_verdict(compared: Evaluation) -> None:
    found = _report(compared)["incumbent"]
    assert found is not None
    assert found["method"] in ("text", "ease")  # the best of the others, without Zhiyin among them
    assert found["verdict"] == "lose"  # the incumbent of this test knows the future
    assert _report(evaluate(WORLD, SPLIT, {"told": lambda seed: Told()}, VECTORS))["incumbent"] is None


def test_the_page_needs_nothing_else(compared: Evaluation) -> None:
    text = page(_report(compared))
    assert "world &lt;1&gt;" in text
    assert "a note &amp; more" in text
    assert not re.search(r"""(?:src|href)=["'](?!data:)""", text)
    drawings = [base64.b64decode(found).decode() for found in re.findall(r"data:image/svg\+xml;base64,([^\"]+)", text)]
    assert len(drawings) == 3
    assert all("ease" in drawing and "<svg" in drawing for drawing in drawings)


def test_sets_without_words_and_categories_are_reported_too() -> None:
    world = purchases([(user, (user + step) % 12, float(step)) for user in range(8) for step in range(5)], 12)
    vectors = np.zeros((12, 4), dtype=np.float32)
    result = evaluate(world, leave_one_out(world), baselines(vectors), vectors)
    found = _report(result)
    assert found["metrics"]["popularity"]["diversity@10"] is None
    assert found["metrics"]["popularity"]["calibration_kl@10"] is None
    assert "Relevance against diversity" not in page(found)


def test_chinese_groups_are_drawn() -> None:
    users = {id_: User(id=id_) for id_ in WORLD.user_ids}
    for number, user in enumerate(users.values()):
        user.attributes["city"].string_value = "北京" if number % 2 else "上海"
    world = replace(WORLD, users=users)
    text = page(_report(evaluate(world, leave_one_out(world), {"told": lambda seed: Told()}, VECTORS)))
    assert "city: 北京" in text


def test_without_cases_there_is_nothing_to_evaluate() -> None:
    world = purchases([(0, 1, 1.0)], 3)
    with pytest.raises(NothingToEvaluate, match="three positive events"):
        evaluate(world, leave_one_out(world), {"told": lambda seed: Told()}, np.zeros((3, 2), dtype=np.float32))


def test_a_list_with_an_item_twice_is_a_fault() -> None:
    class Twice(Told):
        def rank(self, cases: Sequence[Case], k: int) -> Lists:
            return np.zeros((len(cases), k), dtype=np.int32)

    with pytest.raises(ValueError, match="twice"):
        evaluate(WORLD, SPLIT, {"twice": lambda seed: Twice()}, VECTORS)


def test_groups_of_users_and_items() -> None:
    rows = [(0, item, float(item)) for item in range(25)] + [(1, item, float(item)) for item in range(3)]
    users = {"u0": User(id="u0"), "u1": User(id="u1")}
    users["u0"].attributes["paying"].bool_value = True
    users["u1"].attributes["age"].number_value = 31
    world = replace(purchases(rows, 25), users=users)
    split = leave_one_out(world)
    found = {name: members.tolist() for name, members in groups(world, split).items()}
    assert [world.user_ids[case.user] for case in split.cases] == ["u1", "u0"]
    assert found == {
        "users: new (<5 events)": [True, False],
        "users: heavy (>=20 events)": [False, True],
        "items: warm": [True, False],
        "items: cold (no training event)": [False, True],
        "age: 31": [True, False],
        "paying: true": [False, True],
    }
    assert {name: members.tolist() for name, members in history_buckets(split.cases).items()} == {
        "2": [True, False],
        "20-49": [False, True],
    }


def test_numbers_of_many_values_are_grouped_by_thirds() -> None:
    users = {id_: User(id=id_) for id_ in WORLD.user_ids}
    for number, user in enumerate(users.values()):
        user.attributes["age"].number_value = 20 + number % 60
    world = replace(WORLD, users=users)
    found = {name: members for name, members in groups(world, SPLIT).items() if name.startswith("age")}
    assert len(found) == 3
    assert sum(members.sum() for members in found.values()) == len(SPLIT.cases)


def test_ratings_are_judged_on_what_was_not_learned_from() -> None:
    rng = np.random.default_rng(0)
    rows = [
        (u, int(i), float(rng.uniform(0, 99)), RATING, float(1 + (u + i) % 5)) for u in range(30) for i in range(12)
    ]
    world = recorded(rows, 12)
    for training, held in (last_ratings(world), late_ratings(world)):
        assert not set(training.tolist()) & set(held.tolist())
        found = rating_errors(world, training, held)
        assert found["biased-mf"]["rmse"] >= found["biased-mf"]["mae"] > 0
    assert len(last_ratings(world)[1]) == 30
    assert rating_errors(WORLD, *last_ratings(WORLD)) == {}


def test_incumbent_lists_are_read_and_filtered(tmp_path: Path) -> None:
    world = purchases([(0, 1, 1), (0, 2, 2), (0, 3, 3), (1, 1, 4), (1, 2, 5), (1, 0, 6)], 5)
    file = tmp_path / "lists.jsonl"
    file.write_text('{"user_id": "u0", "item_ids": ["i1", "i4", "gone", "i4", "i3"]}\n\n', encoding="utf-8")
    split = leave_one_out(world)
    lists = read_incumbent(file)
    method = Incumbent(lists)
    method.fit(world, split)
    # i1 is in the history, "gone" in no catalogue, i4 twice in the list; u1 has no list.
    assert method.rank(split.cases, 3).tolist() == [[4, 3, -1], [-1, -1, -1]]
    assert cases_without_list(lists, world, split.cases) == 1
    method.fit(world, leave_one_out(world, include_history=True))
    assert method.rank(split.cases, 3)[0].tolist() == [1, 4, 3]


@pytest.mark.parametrize(
    "line",
    ["nonsense", "[]", '{"user_id": 1, "item_ids": []}', '{"user_id": "u0"}', '{"user_id": "u0", "item_ids": [1]}'],
)
def test_a_bad_line_of_an_incumbent_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "lists.jsonl"
    file.write_text('{"user_id": "a", "item_ids": []}\n' + line, encoding="utf-8")
    with pytest.raises(ImportFailed, match="line 2"):
        read_incumbent(file)


def test_a_split_by_time_is_evaluated_over_users() -> None:
    split = time_split(WORLD)
    result = evaluate(WORLD, split, {"told": lambda seed: Told()}, VECTORS)
    assert len(result.users) == len(split.cases)
    assert not math.isnan(result.mean("told", "diversity@10")[1])
