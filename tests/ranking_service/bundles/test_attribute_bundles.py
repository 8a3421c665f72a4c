"""A ranker that reads attributes orders lists by them, says so, and does without where they cannot be had."""

from __future__ import annotations

from pathlib import Path

import lightgbm
import numpy as np
import pytest

from ranking_service.attribute_features.feature_spec import FeatureSpec, Lift, Side, WordField
from ranking_service.bundles.bundle import FEATURES_FILE, RANKER_FILE, BundleUnusable, Manifest, write_bundle
from ranking_service.bundles.loading import serving_bundle
from ranking_service.scorers.features import NAMES
from service_runtime.attributes import to_proto
from tests.ranking_service.recommend_harness import Harness, ids, item, running_ranking
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

LIKE = pb2.EVENT_TYPE_LIKE
LIFTED = Lift("context.device", "attributes.brand", {"phone": {"acme": 2.0, "zeta": -2.0}})
SPEC = FeatureSpec(
    (WordField("attributes.brand", 1, {"acme": 9.0, "zeta": 9.0}),),
    sides=(Side("context.device", "words", ("phone", "tv")),),
    lifts=(LIFTED,),
).keeping(["attributes.brand.share", LIFTED.name])
COLUMNS = NAMES + SPEC.names


def ranker_by(column: str) -> bytes:
    """A ranker that puts first what is high in one column, whatever the sources say."""
    rng = np.random.default_rng(0)
    rows = rng.random((2_000, len(COLUMNS))).astype(np.float32) * 4 - 2
    data = lightgbm.Dataset(rows, (rows[:, COLUMNS.index(column)] * 4 + 8).astype(int), group=[100] * 20)
    settings = {"objective": "lambdarank", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    return lightgbm.train(settings, data, 20).model_to_string().encode()


def bundle(column: str) -> tuple[Manifest, dict[str, bytes]]:
    manifest = Manifest("by-brand", "default", 1e9, "ranker", {"history": 1.0}, feature_names=COLUMNS)
    return manifest, {RANKER_FILE: ranker_by(column), FEATURES_FILE: SPEC.to_json()}


def branded_catalog() -> list[Item]:
    items = [item(f"{'az'[n % 2]}-{n}", f"lamp light desk number{n}", "Lamps") for n in range(16)]
    for made in items:
        to_proto({"brand": "acme" if made.id[0] == "a" else "zeta", "story": "x" * 900}, made.attributes)
    return items


async def activate(zhiyin: Harness) -> None:
    await zhiyin.stub.ActivateBundle(pb2.ActivateBundleRequest(catalog="default", bundle_id="by-brand"))


@pytest.mark.parametrize("brand", ["a", "z"])
async def test_what_has_the_brand_of_the_likes_comes_first_and_explain_says_why(tmp_path: Path, brand: str) -> None:
    write_bundle(tmp_path / "bundles" / "default", *bundle("attributes.brand.share"))
    async with running_ranking(tmp_path, *branded_catalog()) as zhiyin:
        liked = [entry.id for entry in branded_catalog() if entry.id[0] == brand][:2]
        await zhiyin.act("ann", LIKE, *liked)
        await zhiyin.recommend("ann", page_size=6)  # what is remembered of the likes has no attributes yet
        await activate(zhiyin)
        served = await zhiyin.recommend("ann", page_size=6, diversity=0.0)
        assert [entry[0] for entry in ids(served)] == [brand] * 6
        assert not served.degraded
        read = {path for path in zhiyin.retrieval.searches[-1].read_mask.paths if path.startswith("attributes")}
        assert read == {"attributes.brand"}
        request = pb2.ExplainRequest(catalog="default", attribution_token=served.items[0].attribution_token)
        told = await zhiyin.stub.Explain(request)
        assert told.features["attributes.brand.share"] == 1.0
        assert LIFTED.name not in told.features  # no device was told


async def test_a_device_decides_where_a_ranker_reads_it(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundles" / "default", *bundle(LIFTED.name))
    async with running_ranking(tmp_path, *branded_catalog()) as zhiyin:
        await zhiyin.act("ann", LIKE, "z-1", "z-3")
        await activate(zhiyin)
        context = pb2.RecommendContext(device="phone")
        served = await zhiyin.recommend("ann", page_size=6, diversity=0.0, context=context)
        assert [entry[0] for entry in ids(served)] == ["a"] * 6


async def test_attributes_that_a_reply_has_no_room_for_are_done_without(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundles" / "default", *bundle("attributes.brand.share"))
    async with running_ranking(tmp_path, *branded_catalog()) as zhiyin:
        await zhiyin.act("ann", LIKE, "a-0", "a-2")
        await activate(zhiyin)
        zhiyin.retrieval.refuses_attributes = True
        served = await zhiyin.recommend("ann", page_size=6)
        assert len(served.items) == 6
        assert [part.component for part in served.degraded] == ["attributes"]
        assert served.items[0].reason.item_ids  # what the likes are like is still known
        zhiyin.retrieval.refuses_attributes = False
        assert not (await zhiyin.recommend("ann", page_size=6)).degraded


async def test_who_searches_or_has_done_nothing_costs_no_attributes(tmp_path: Path) -> None:
    write_bundle(tmp_path / "bundles" / "default", *bundle("attributes.brand.share"))
    async with running_ranking(tmp_path, *branded_catalog()) as zhiyin:
        await activate(zhiyin)
        await zhiyin.act("ann", LIKE, "a-0")
        await zhiyin.recommend("ann", query_text="lamp")
        await zhiyin.recommend("nobody")
        asked = [path for search in zhiyin.retrieval.searches for path in search.read_mask.paths]
        assert not [path for path in asked if path.startswith("attributes")]


@pytest.mark.parametrize("damage", ["no file", "other columns", "no spec", "no columns told"])
def test_a_bundle_whose_ranker_reads_something_else_is_refused(damage: str) -> None:
    manifest, files = bundle("attributes.brand.share")
    assert serving_bundle(manifest, files).attributes is not None
    if damage == "no file":
        del files[FEATURES_FILE]
    elif damage == "other columns":
        files[FEATURES_FILE] = SPEC.keeping(["attributes.brand.share"]).to_json()
    elif damage == "no spec":
        files[FEATURES_FILE] = b"{}"
    else:
        manifest = Manifest("by-brand", "default", 1e9, "ranker", feature_names=NAMES)
    with pytest.raises(BundleUnusable, match="train again" if damage != "no spec" else "no feature spec"):
        serving_bundle(manifest, files)


def test_a_bundle_from_before_attributes_serves_as_it_did() -> None:
    manifest = Manifest("old", "default", 1e9, "ranker", {"history": 1.0}, feature_names=NAMES)
    served = serving_bundle(manifest, {RANKER_FILE: ranker_by("age_days")})
    assert served.attributes is None
