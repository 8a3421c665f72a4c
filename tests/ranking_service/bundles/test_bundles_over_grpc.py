"""Bundles are listed, switched and rolled back while lists are made; of broken ones none serves."""

from __future__ import annotations

import asyncio
import json
import shutil
from pathlib import Path

import grpc
import lightgbm
import numpy as np
import pytest

from ranking_service.bundles.bundle import RANKER_FILE, Manifest, Serves, write_bundle
from ranking_service.candidate import SourceKind
from ranking_service.scorers.features import NAMES
from tests.ranking_service.recommend_harness import Harness, ids, item, running_ranking, themed_catalog
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

LIKE = pb2.EVENT_TYPE_LIKE


def new_first_ranker() -> bytes:
    """A ranker that puts what is new before what is old, whatever the sources say."""
    rng = np.random.default_rng(0)
    rows = rng.random((2_000, len(NAMES))).astype(np.float32) * 8
    newer = (8 - rows[:, NAMES.index("age_days")]).astype(int)
    data = lightgbm.Dataset(rows, newer, group=[100] * 20)
    settings = {"objective": "lambdarank", "verbose": -1, "num_threads": 1, "min_data_in_leaf": 5}
    return lightgbm.train(settings, data, 20).model_to_string().encode()


def put(folder: Path, bundle: str, serves: Serves, created_at: float = 1e9, **fields) -> None:
    files = {RANKER_FILE: new_first_ranker()} if serves == "ranker" else {}
    manifest = Manifest(bundle, "default", created_at, serves, feature_names=NAMES, **fields)
    write_bundle(folder / "bundles" / "default", manifest, files)


async def activate(zhiyin: Harness, bundle: str) -> None:
    await zhiyin.stub.ActivateBundle(pb2.ActivateBundleRequest(catalog="default", bundle_id=bundle))


async def test_a_learned_ranker_orders_lists_and_rolling_back_restores_them(tmp_path: Path) -> None:
    items = themed_catalog(8)
    items += [item(f"film-new-{n}", f"movie cinema fresh{n}", "Films", days_old=40.0) for n in range(3)]
    put(tmp_path, "learned-1", "ranker", metrics={"ndcg@10": 0.5}, weights={"history": 1.0})
    async with running_ranking(tmp_path, *items) as zhiyin:
        await zhiyin.act("ann", LIKE, "film-1", "film-2")
        before = await zhiyin.recommend("ann", page_size=10, diversity=0.0)
        assert before.versions.bundle == "builtin"
        await activate(zhiyin, "learned-1")
        learned = await zhiyin.recommend("ann", page_size=10, diversity=0.0)
        assert learned.versions.bundle == "learned-1"
        assert all("new" in item_id for item_id in ids(learned)[:3])
        assert learned.items[0].reason.text
        await activate(zhiyin, "builtin")
        after = await zhiyin.recommend("ann", page_size=10, diversity=0.0)
        assert (ids(after), after.versions.bundle) == (ids(before), "builtin")


async def test_learned_weights_decide_for_those_who_browse_and_a_text_decides_for_those_who_search(
    tmp_path: Path,
) -> None:
    put(tmp_path, "popular-only", "blend", weights={SourceKind.POPULAR.name.lower(): 5.0})
    async with running_ranking(tmp_path, *themed_catalog(8)) as zhiyin:
        for user in ("bo", "cy", "di"):
            await zhiyin.act(user, LIKE, "cooking-5")
        await zhiyin.act("ann", LIKE, "film-1")
        await activate(zhiyin, "popular-only")
        assert ids(await zhiyin.recommend("ann", page_size=5))[0] == "cooking-5"
        searched = await zhiyin.recommend("ann", page_size=5, query_text="beach mountain hotel flight")
        assert ids(searched)[0].startswith("travel")


async def test_no_list_fails_while_bundles_are_switched(tmp_path: Path) -> None:
    put(tmp_path, "one", "ranker")
    put(tmp_path, "two", "blend", weights={"history": 1.0})
    async with running_ranking(tmp_path, *themed_catalog(8)) as zhiyin:
        await zhiyin.act("ann", LIKE, "film-1")
        served: set[str] = set()

        async def ask() -> None:
            for _ in range(30):
                served.add((await zhiyin.recommend("ann", page_size=5)).versions.bundle)

        asking = asyncio.gather(ask(), ask())
        for bundle in ("one", "two", "builtin", "two", "one"):
            await activate(zhiyin, bundle)
            await asyncio.sleep(0.05)
        await asking
        assert {"one", "two"} <= served


async def test_bundles_are_listed_newest_first_in_pages(tmp_path: Path) -> None:
    for n in range(5):
        put(tmp_path, f"b{n}", "blend", created_at=1e9 + n, metrics={"ndcg@10": n / 10})
    async with running_ranking(tmp_path) as zhiyin:
        await activate(zhiyin, "b1")
        seen, token = [], ""
        while True:
            request = pb2.ListBundlesRequest(catalog="default", page_size=2, page_token=token)
            reply = await zhiyin.stub.ListBundles(request)
            seen += reply.bundles
            token = reply.next_page_token
            if not token:
                break
        assert [bundle.id for bundle in seen] == ["b4", "b3", "b2", "b1", "b0"]
        assert [bundle.id for bundle in seen if bundle.active] == ["b1"]
        assert seen[0].metrics["ndcg@10"] == pytest.approx(0.4)


async def test_the_active_bundle_serves_again_after_a_restart(tmp_path: Path) -> None:
    put(tmp_path, "kept", "blend", weights={"history": 1.0})
    async with running_ranking(tmp_path, *themed_catalog(4)) as zhiyin:
        await activate(zhiyin, "kept")
    async with running_ranking(tmp_path, *themed_catalog(4)) as zhiyin:
        await zhiyin.act("ann", LIKE, "film-1")
        assert (await zhiyin.recommend("ann")).versions.bundle == "kept"


@pytest.mark.parametrize("damage", ["flipped", "missing", "newer", "foreign"])
async def test_a_bundle_that_cannot_be_served_is_refused_and_the_one_before_goes_on(
    tmp_path: Path, damage: str
) -> None:
    put(tmp_path, "good", "blend", weights={"history": 1.0})
    put(tmp_path, "bad", "ranker")
    folder = tmp_path / "bundles" / "default" / "bad"
    manifest = json.loads((folder / "manifest.json").read_text())
    if damage == "flipped":
        content = bytearray((folder / RANKER_FILE).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / RANKER_FILE).write_bytes(content)
    elif damage == "missing":
        (folder / RANKER_FILE).unlink()
    elif damage == "newer":
        (folder / "manifest.json").write_text(json.dumps({**manifest, "format": 99}))
    else:
        (folder / "manifest.json").write_text(json.dumps({**manifest, "feature_names": ["other"]}))
    async with running_ranking(tmp_path, *themed_catalog(4)) as zhiyin:
        await zhiyin.act("ann", LIKE, "film-1")
        await activate(zhiyin, "good")
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await activate(zhiyin, "bad")
        assert refused.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert "bad" in (refused.value.details() or "")
        assert (await zhiyin.recommend("ann")).versions.bundle == "good"


async def test_unknown_bundles_and_catalogues_are_told(tmp_path: Path) -> None:
    async with running_ranking(tmp_path) as zhiyin:
        for catalog, bundle in (("default", "none-such"), ("nowhere", "builtin")):
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await zhiyin.stub.ActivateBundle(pb2.ActivateBundleRequest(catalog=catalog, bundle_id=bundle))
            assert refused.value.code() is grpc.StatusCode.NOT_FOUND


async def test_explain_tells_what_the_ranker_read_and_makes_lists_anew_with_the_bundle_that_made_them(
    tmp_path: Path,
) -> None:
    items = themed_catalog(8)
    items += [item(f"film-new-{n}", f"movie cinema fresh{n}", "Films", days_old=40.0) for n in range(3)]
    put(tmp_path, "learned-1", "ranker", weights={"history": 1.0})
    async with running_ranking(tmp_path, *items) as zhiyin:
        await zhiyin.act("ann", LIKE, "film-1", "film-2")
        await activate(zhiyin, "learned-1")
        served = await zhiyin.recommend("ann", page_size=5)
        await activate(zhiyin, "builtin")
        request = pb2.ExplainRequest(
            catalog="default", attribution_token=served.items[0].attribution_token, reproduce=True
        )
        told = await zhiyin.stub.Explain(request)
        assert told.features["age_days"] == pytest.approx(np.log1p(40.0), abs=0.01)
        assert told.features["user.likes"] == pytest.approx(np.log1p(2))
        assert told.reproduction.identical
        assert told.reproduction.versions.bundle == "learned-1"
        shutil.rmtree(tmp_path / "bundles" / "default" / "learned-1")
        made = (await zhiyin.stub.Explain(request)).reproduction
        assert list(made.moved_on) == ["bundle"]
        assert made.versions.bundle == "builtin"
        assert list(made.item_ids) != ids(served)
