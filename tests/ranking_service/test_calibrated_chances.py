"""Chances of recommended items: what maps a bundle may bring, and which requests get chances at all."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import cast

import grpc
import numpy as np
import pytest

from ranking_service.bundles.bundle import Manifest, write_bundle
from ranking_service.candidate import Pool, SourceKind
from ranking_service.intents.intent import Understood
from ranking_service.query import Query
from ranking_service.scorers.calibration import Knots, Logistic, calibration_of
from ranking_service.scorers.features import NAMES
from ranking_service.scorers.learned import LearnedScorer
from ranking_service.scorers.scorer import Opinions
from ranking_service.scorers.tree_ranker import TreeRanker
from ranking_service.taste import Anchor, Taste
from ranking_service.users.user_state import UserState
from tests.ranking_service.recommend_harness import Harness, running_ranking, themed_catalog
from zhiyin.common.v1.filter_pb2 import FieldIn, Filter
from zhiyin.common.v1.item_pb2 import AttributeValue, Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

LIKE = pb2.EVENT_TYPE_LIKE
MAP = {"slope": 0.8, "intercept": -2.0}


def put(folder: Path, bundle: str, **fields) -> None:
    manifest = Manifest(bundle, "default", 1e9, "blend", weights={"history": 1.0, "transition": 0.5}, **fields)
    write_bundle(folder / "bundles" / "default", manifest, {})


async def activate(zhiyin: Harness, bundle: str) -> None:
    await zhiyin.stub.ActivateBundle(pb2.ActivateBundleRequest(catalog="default", bundle_id=bundle))


def chances(reply: pb2.RecommendResponse) -> list[float | None]:
    return [entry.probability if entry.HasField("probability") else None for entry in reply.items]


@pytest.mark.parametrize("found", [Logistic(1.5, -2.0), Knots((-1.0, 0.0, 2.0), (0.1, 0.1, 0.7))], ids=["two", "any"])
def test_a_map_rises_stays_within_0_and_1_and_survives_the_manifest(found: Logistic | Knots) -> None:
    relevance = np.array([-1e6, -3, -1, -0.5, 0, 1, 2, 50, 1e6], np.float32)
    values = found.chances(relevance)
    assert (np.diff(values) >= 0).all()
    assert ((values >= 0) & (values <= 1)).all()
    again = calibration_of(found.fields())
    assert again == found


def test_maps_give_what_their_formulas_say() -> None:
    two, several = calibration_of({"slope": 2, "intercept": -1}), calibration_of({"scores": [0, 2], "chances": [0, 1]})
    assert two is not None
    assert several is not None
    assert float(two.chances(np.array([0.25], np.float32))[0]) == pytest.approx(1 / (1 + math.exp(0.5)), rel=1e-6)
    assert several.chances(np.array([-1, 0.5, 1, 9], np.float32)).tolist() == [0, 0.25, 0.5, 1]
    assert calibration_of({}) is None


@pytest.mark.parametrize(
    "fields",
    [
        {"slope": -0.1, "intercept": 0},
        {"slope": float("nan"), "intercept": 0},
        {"slope": 1},
        {"scores": [0, 1], "chances": [0.5, 0.4]},
        {"scores": [1, 0], "chances": [0.1, 0.2]},
        {"scores": [0, 1], "chances": [0.1, 1.2]},
        {"scores": [], "chances": []},
        {"scores": [0], "chances": [0.1, 0.2]},
        {"knots": 3},
        {"scores": 3, "chances": 4},
    ],
)
async def test_a_map_that_is_none_makes_its_bundle_unusable(tmp_path: Path, fields: dict) -> None:
    put(tmp_path, "odd", calibration=fields)
    async with running_ranking(tmp_path, *themed_catalog(2)) as zhiyin:
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await activate(zhiyin, "odd")
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "BUNDLE_UNUSABLE" in str(refused.value.trailing_metadata())


async def test_chances_are_made_of_the_relevance_and_explain_tells_them(tmp_path: Path) -> None:
    put(tmp_path, "calibrated", calibration=MAP)
    async with running_ranking(tmp_path, *themed_catalog(6)) as zhiyin:
        await zhiyin.act("ann", LIKE, "film-1", "music-2")
        assert set(chances(await zhiyin.recommend("ann"))) == {None}
        await activate(zhiyin, "calibrated")
        reply = await zhiyin.recommend("ann", page_size=8)
        expected = [1 / (1 + math.exp(2.0 - 0.8 * entry.score)) for entry in reply.items]
        assert chances(reply) == pytest.approx(expected, rel=1e-4)
        assert len(set(chances(reply))) > 2
        request = pb2.ExplainRequest(catalog="default", attribution_token=reply.items[1].attribution_token)
        told = await zhiyin.stub.Explain(request)
        assert told.item.probability == reply.items[1].probability
        assert [entry.probability for entry in told.list] == chances(reply)
        following = await zhiyin.recommend("ann", page_size=8, page_token=reply.next_page_token)
        assert None not in chances(following)


async def test_a_boost_moves_the_place_and_not_the_chance(tmp_path: Path) -> None:
    put(tmp_path, "calibrated", calibration=MAP)
    async with running_ranking(tmp_path, *themed_catalog(6)) as zhiyin:
        await zhiyin.act("ann", LIKE, "film-1")
        await activate(zhiyin, "calibrated")
        before = await zhiyin.recommend("ann", page_size=20, diversity=0.0)
        cooking = Filter(field_in=FieldIn(field="categories", values=[AttributeValue(string_value="Cooking")]))
        rule = pb2.Rule(id="spring", action=pb2.RULE_ACTION_BOOST, filter=cooking, strength=9.0)
        await zhiyin.stub.PutRule(pb2.PutRuleRequest(catalog="default", rule=rule))
        after = await zhiyin.recommend("ann", page_size=20, diversity=0.0)
        of_before = {entry.item.id: entry.probability for entry in before.items}
        of_after = {entry.item.id: entry.probability for entry in after.items}
        assert [entry.item.id for entry in after.items] != [entry.item.id for entry in before.items]
        assert after.items[0].item.id.startswith("cooking")
        shared = of_before.keys() & of_after.keys()
        assert shared
        assert all(of_after[item_id] == pytest.approx(of_before[item_id], rel=1e-3) for item_id in shared)


async def test_requests_whose_scores_are_on_no_scale_have_no_chances(tmp_path: Path) -> None:
    put(tmp_path, "calibrated", calibration=MAP)
    async with running_ranking(tmp_path, *themed_catalog(6)) as zhiyin:
        await zhiyin.act("ann", LIKE, "film-1")
        await zhiyin.describe("bo", "recipe oven spice")
        await activate(zhiyin, "calibrated")
        assert None not in chances(await zhiyin.recommend("ann"))
        for reply in (
            await zhiyin.recommend("ann", query_text="beach mountain"),
            await zhiyin.recommend("bo"),
            await zhiyin.recommend("nobody"),
            await zhiyin.recommend(),
        ):
            assert reply.items
            assert set(chances(reply)) == {None}
        shelf = await zhiyin.stub.SimilarItems(pb2.SimilarItemsRequest(catalog="default", item_ids=["film-1"]))
        assert not any(entry.HasField("probability") for entry in shelf.items)


async def test_what_a_profile_adds_is_no_part_of_the_chance(tmp_path: Path) -> None:
    """No training hears what people say: a profile moves the order, and the chance is what events tell."""
    put(tmp_path, "calibrated", calibration=MAP)
    async with running_ranking(tmp_path, *themed_catalog(6)) as zhiyin:
        await zhiyin.act("ann", LIKE, "film-1")
        await zhiyin.describe("ann", "movie cinema director recipe oven spice kitchen")
        await activate(zhiyin, "calibrated")
        reply = await zhiyin.recommend("ann", page_size=10)
        by_profile = [
            sum(source.contribution for source in entry.sources if source.source == pb2.SOURCE_KIND_PROFILE)
            for entry in reply.items
        ]
        assert max(by_profile) > 0.1
        proposed = [place for place, added in enumerate(by_profile) if added]
        expected = [
            1 / (1 + math.exp(2.0 - 0.8 * (reply.items[place].score - by_profile[place]))) for place in proposed
        ]
        assert [reply.items[place].probability for place in proposed] == pytest.approx(expected, rel=1e-4)


class Upside:
    """A ranker that turns the order round."""

    def score(self, rows: np.ndarray) -> np.ndarray:
        return -rows[:, NAMES.index("blend")]


@pytest.mark.parametrize("what", ["nothing", "intents", "a profile", "a ranker", "a ranker and a profile"])
def test_the_common_scale_is_that_of_what_trainings_hear(what: str) -> None:
    """Intents leave it, and so does a ranker that has dealt out anew what a profile added."""
    evidence = {SourceKind.HISTORY: np.array([3.0, 1.0, 2.0], np.float32)}
    if "profile" in what:
        evidence[SourceKind.PROFILE] = np.array([0.0, 1.0, 5.0], np.float32)
    opinions = Opinions(evidence, dict.fromkeys(evidence, 0.01), np.zeros(3, np.float32))
    taste = Taste(Query("default", "u", now=1e9), UserState("u"), (Anchor("liked", 1.0, LIKE, 9e8),))
    if what == "intents":
        taste = replace(taste, understood=Understood((("new", 0.5),), {SourceKind.FRESH: 2.0}))
    vectors = np.zeros((3, 2), np.float32)
    ids = ["a", "b", "c"]
    pool = Pool(ids, [Item(id=i) for i in ids], vectors, vectors.astype(np.float16), {}, {})
    ranker = cast("TreeRanker", Upside()) if "ranker" in what else None
    scorer = LearnedScorer({SourceKind.HISTORY: 1.0}, ranker, 3, 0.0, Logistic(1.0, 0.0))
    scores = scorer.score(taste, pool, opinions)
    if what in ("intents", "a ranker and a profile"):
        assert scores.chance is None
        return
    assert scores.chance is not None
    heard = scores.total - scores.by_source.get(SourceKind.PROFILE, 0.0)
    assert scores.chance == pytest.approx(1 / (1 + np.exp(-heard)), rel=1e-5)
    assert list(np.argsort(-scores.chance)) == ([1, 2, 0] if what == "a ranker" else [0, 2, 1])
