"""Named vector spaces over a real channel: made, filled, published, searched, retired, there again after a restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import numpy as np
import pytest

from tests.retrieval_service.fake_encoder_server import embed
from tests.retrieval_service.retrieval_harness import Retrieval, hit_ids, item, running_retrieval
from tests.retrieval_service.space_steps import (
    FINGERPRINT,
    SIZE,
    SPACE,
    create,
    held,
    linear,
    listed,
    projected,
    publish,
    put,
    retire,
    rows_of,
    search,
    wire_matrix,
    wire_vector,
)
from tests.retrieval_service.test_retrieval_rpcs import code_of, violations_of
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb

TITLES = {f"i{n}": f"film number {n} {'red' if n % 2 else 'blue'}" for n in range(20)}
QUERY = np.linspace(-1.0, 1.0, SIZE)
PRECONDITION, NOT_FOUND = grpc.StatusCode.FAILED_PRECONDITION, grpc.StatusCode.NOT_FOUND


@pytest.fixture
async def retrieval(tmp_path: Path) -> AsyncIterator[Retrieval]:
    async with running_retrieval(tmp_path) as running:
        await running.upsert(*(item(item_id, title) for item_id, title in TITLES.items()))
        yield running


def axis(i: int, length: float = 1.0) -> np.ndarray:
    return length * np.eye(SIZE)[i]


# ---- the life of a version


async def test_a_version_is_made_filled_published_and_found(retrieval: Retrieval) -> None:
    version = await create(retrieval)
    assert (version.space, version.published, version.vector_count) == (SPACE, False, 0)
    sequence = await put(retrieval, version, {"i3": axis(0, 2.0), "i4": axis(0, 5.0), "i5": axis(1)})
    assert await code_of(search(retrieval, axis(0))) == (PRECONDITION, "SPACE_NOT_PUBLISHED")
    before = await search(retrieval, axis(0), space_version=version.version, min_sequence=sequence)
    shown = await publish(retrieval, version)
    assert (shown.published, shown.vector_count, shown.put_vector_count) == (True, 3, 3)
    found = await search(retrieval, axis(0))
    assert hit_ids(found) == hit_ids(before) == ["i4", "i3", "i5"]
    assert list(found.results[0].scores) == [5.0, 2.0, 0.0]
    assert dict(found.space_versions) == {"semantic": 1, SPACE: version.version}
    assert [(v.space, v.version, v.published) for v in await listed(retrieval)] == [
        ("semantic", 1, True),
        (SPACE, version.version, True),
    ]
    stats = await retrieval.stats()
    assert stats.applied_sequence == stats.sequence == sequence


async def test_the_space_before_is_searched_until_the_next_is_published_and_is_the_way_back(
    retrieval: Retrieval,
) -> None:
    old = await create(retrieval)
    await put(retrieval, old, {"i1": axis(0)})
    await publish(retrieval, old)
    new = await create(retrieval, space_fingerprint="model-8")
    assert new.version > old.version
    await put(retrieval, new, {"i2": axis(0)})
    assert hit_ids(await search(retrieval, axis(0))) == ["i1"]
    await publish(retrieval, new)
    assert hit_ids(await search(retrieval, axis(0))) == ["i2"]
    pinned = await search(retrieval, axis(0), space_version=old.version)
    assert (hit_ids(pinned), pinned.space_versions[SPACE]) == (["i1"], old.version)
    await publish(retrieval, old)
    assert hit_ids(await search(retrieval, axis(0))) == ["i1"]
    assert [(v.version, v.published) for v in await listed(retrieval)][1:] == [
        (old.version, True),
        (new.version, False),
    ]


async def test_a_concurrent_search_is_answered_by_one_version_and_says_which(retrieval: Retrieval) -> None:
    versions = []
    for name in ("i1", "i2"):
        versions.append(await create(retrieval, space_fingerprint=f"of {name}"))
        await put(retrieval, versions[-1], {name: axis(0), "i9": axis(1)})
    await publish(retrieval, versions[0])
    expected = {versions[0].version: "i1", versions[1].version: "i2"}
    seen: set[int] = set()

    async def look() -> None:
        for _ in range(60):
            reply = await search(retrieval, axis(0), score_all=True)
            version = reply.space_versions[SPACE]
            assert hit_ids(reply)[0] == expected[version]
            seen.add(version)

    async def switch() -> None:
        for i in range(20):
            await publish(retrieval, versions[(i + 1) % 2])

    await asyncio.gather(look(), look(), switch())
    assert seen == set(expected)


async def test_a_version_that_is_not_published_can_be_retired_for_good(retrieval: Retrieval, tmp_path: Path) -> None:
    first, second = await create(retrieval), await create(retrieval)
    for version in (first, second):
        await put(retrieval, version, {"i1": axis(0)})
    await publish(retrieval, first)
    assert await code_of(retire(retrieval, first)) == (PRECONDITION, "SPACE_VERSION_PUBLISHED")
    await publish(retrieval, second)
    await retire(retrieval, first)
    assert await code_of(retire(retrieval, first)) == (NOT_FOUND, "SPACE_VERSION_NOT_FOUND")
    assert await code_of(publish(retrieval, first)) == (NOT_FOUND, "SPACE_VERSION_NOT_FOUND")
    assert await code_of(put(retrieval, first, {"i1": axis(0)})) == (NOT_FOUND, "SPACE_VERSION_NOT_FOUND")
    pinned = search(retrieval, axis(0), space_version=first.version)
    assert await code_of(pinned) == (NOT_FOUND, "SPACE_VERSION_NOT_FOUND")
    assert [v.version for v in await listed(retrieval)] == [1, second.version]
    third = await create(retrieval)
    assert third.version > second.version  # no number comes twice
    with retrieval.service.store.engine.connect() as connection:
        left = connection.exec_driver_sql("SELECT count(*) FROM space_vectors").scalar_one()
    assert left == 1


async def test_so_many_versions_and_no_more(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path, max_space_versions=2) as running:
        limits = await running.stub.GetLimits(pb.GetLimitsRequest())
        assert (limits.max_space_versions, limits.max_space_dimensions) == (2, 1024)
        first = await create(running)
        await create(running, space="other")
        assert await code_of(create(running, space="third")) == (PRECONDITION, "TOO_MANY_SPACE_VERSIONS")
        await retire(running, first)
        await create(running, space="third")
        # Of a catalogue: another one has its own.
        await running.stub.CreateCatalog(pb.CreateCatalogRequest(catalog=pb.Catalog(name="music")))
        await create(running, catalog="music")
        names = [v.space for v in await listed(running, page_size=1000)]
        assert names == ["other", "semantic", "third"]
        page = await running.stub.ListSpaceVersions(pb.ListSpaceVersionsRequest(catalog="default", page_size=2))
        rest = await listed(running, page_token=page.next_page_token, page_size=2)
        assert [v.space for v in (*page.space_versions, *rest)] == names
        # A dropped catalogue takes its spaces along.
        await running.stub.DropCatalog(pb.DropCatalogRequest(catalog="music"))
        await running.stub.CreateCatalog(pb.CreateCatalogRequest(catalog=pb.Catalog(name="music")))
        assert [v.space for v in await listed(running, catalog="music")] == ["semantic"]


async def test_the_same_request_makes_one_version(retrieval: Retrieval) -> None:
    first = await create(retrieval, request_id="train-1")
    assert await create(retrieval, request_id="train-1") == first
    assert await code_of(create(retrieval, request_id="train-1", dimensions=3)) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ALREADY_EXISTS",
    )
    assert len(await listed(retrieval)) == 2
    await retire(retrieval, first)
    assert await code_of(create(retrieval, request_id="train-1")) == (NOT_FOUND, "SPACE_NOT_FOUND")


# ---- derived spaces


async def test_a_derived_space_has_a_vector_for_every_item_and_for_new_ones_at_once(retrieval: Retrieval) -> None:
    weights, bias = linear()
    mean = np.mean([embed(title) for title in TITLES.values()], axis=0)
    version = await create(retrieval, projection=weights, bias=bias, source_mean=mean)
    assert (version.vector_count, version.put_vector_count, version.derived_from_space) == (20, 0, "semantic")
    own = axis(2, 3.0)
    await put(retrieval, version, {"i3": own})
    await publish(retrieval, version)
    titles = {**TITLES, "new": "a wholly different title"}
    await retrieval.upsert(item("new", titles["new"]))
    titles["i3"], titles["i4"] = "changed red", "changed blue"
    await retrieval.upsert(item("i3", titles["i3"]), item("i4", titles["i4"]))
    await retrieval.upsert(item("i5", titles["i5"], categories=["same words"]))
    expected = dict(zip(titles, projected(list(titles.values()), weights, bias, mean), strict=True))
    expected["i3"] = own  # put: it stays
    found = await held(retrieval, list(titles), version)
    for item_id, vector in expected.items():
        np.testing.assert_allclose(found[item_id], vector, atol=4e-3, err_msg=item_id)
    scores = {item_id: float(vector @ QUERY) for item_id, vector in expected.items()}
    reply = await search(retrieval, QUERY)
    assert hit_ids(reply) == sorted(scores, key=lambda item_id: -scores[item_id])
    np.testing.assert_allclose(list(reply.results[0].scores), sorted(scores.values(), reverse=True), atol=1e-4)


async def test_the_present_mean_is_kept_when_none_is_given(retrieval: Retrieval) -> None:
    weights, bias = linear()
    version = await create(retrieval, projection=weights, bias=bias)
    mean = np.mean([embed(title) for title in TITLES.values()], axis=0)
    expected = projected(list(TITLES.values()), weights, bias, mean)
    np.testing.assert_allclose(list((await held(retrieval, list(TITLES), version)).values()), expected, atol=4e-3)
    # The corpus changes, its mean with it; the map goes on with the one that it was made for.
    await retrieval.upsert(*(item(f"z{n}", f"新闻 体育 足球 比赛 {n}") for n in range(60)))
    np.testing.assert_allclose(list((await held(retrieval, list(TITLES), version)).values()), expected, atol=4e-3)
    new = projected([f"新闻 体育 足球 比赛 {n}" for n in range(60)], weights, bias, mean)
    found = await held(retrieval, [f"z{n}" for n in range(60)], version)
    np.testing.assert_allclose([found[f"z{n}"] for n in range(60)], new, atol=4e-3)


async def test_a_deleted_item_leaves_every_version(retrieval: Retrieval) -> None:
    weights, bias = linear()
    derived, pushed = await create(retrieval, projection=weights, bias=bias), await create(retrieval, space="pushed")
    for version in (derived, pushed):
        await put(retrieval, version, {"i1": axis(0, 9.0), "i2": axis(0, 8.0)})
        await publish(retrieval, version)
    await retrieval.stub.DeleteItems(pb.DeleteItemsRequest(catalog="default", item_ids=["i1"]))
    for version, count in ((derived, 19), (pushed, 1)):
        found = hit_ids(await search(retrieval, axis(0), space=version.space))
        assert "i1" not in found
        assert found[0] == "i2"
        assert len(found) == count
    # Made again, it is a new item: what was put for the old one is gone with it.
    await retrieval.upsert(item("i1", TITLES["i1"]))
    assert "i1" not in hit_ids(await search(retrieval, axis(0), space="pushed"))
    assert "i1" in hit_ids(await search(retrieval, axis(0)))
    assert not np.allclose((await held(retrieval, ["i1"], derived))["i1"], axis(0, 9.0))


# ---- metrics and centring


async def test_a_cosine_space_ignores_lengths_and_is_centred_from_its_publication_on(retrieval: Retrieval) -> None:
    random = np.random.default_rng(3)
    raw = {item_id: 4.0 + random.standard_normal(SIZE) for item_id in TITLES}  # a narrow cone
    version = await create(retrieval, metric=pb.METRIC_COSINE, centered=True)
    await put(retrieval, version, {item_id: vector * 100 for item_id, vector in raw.items()})
    units = np.stack([vector / np.linalg.norm(vector) for vector in raw.values()])
    plain = await search(retrieval, QUERY * 7, space_version=version.version)
    best = dict(zip(raw, units @ QUERY / np.linalg.norm(QUERY), strict=True))
    assert hit_ids(plain) == sorted(best, key=lambda item_id: -best[item_id])
    await publish(retrieval, version)
    mean = units.mean(axis=0)
    centred = (units - mean) / np.linalg.norm(units - mean, axis=1, keepdims=True)
    query = QUERY / np.linalg.norm(QUERY) - mean
    scores = dict(zip(raw, centred @ query / np.linalg.norm(query), strict=True))
    reply = await search(retrieval, QUERY * 7)
    assert hit_ids(reply) == sorted(scores, key=lambda item_id: -scores[item_id])
    np.testing.assert_allclose(list(reply.results[0].scores), sorted(scores.values(), reverse=True), atol=1e-5)
    # The mean stays when vectors come: what was trained against it keeps its place.
    before = await held(retrieval, list(raw), version)
    await put(retrieval, version, {"i0": -raw["i0"]})
    after = await held(retrieval, list(raw), version)
    assert all((before[i] == after[i]).all() for i in raw if i != "i0")


async def test_what_must_not_be_published_is_refused(retrieval: Retrieval) -> None:
    empty = await create(retrieval)
    assert await code_of(publish(retrieval, empty)) == (PRECONDITION, "SPACE_EMPTY")
    small = await create(retrieval, metric=pb.METRIC_COSINE, centered=True)
    await put(retrieval, small, {f"i{n}": axis(n % SIZE) for n in range(15)})
    assert await code_of(publish(retrieval, small)) == (PRECONDITION, "SPACE_TOO_SMALL")
    await put(retrieval, small, {"i15": axis(0)})
    await publish(retrieval, small)
    assert await code_of(create(retrieval, catalog="nowhere")) == (NOT_FOUND, "CATALOG_NOT_FOUND")


async def test_there_is_nothing_to_project_from_in_an_empty_catalogue(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path) as running:
        assert await code_of(create(running, projection=linear()[0])) == (PRECONDITION, "SPACE_EMPTY")
        version = await create(running)  # a space that is only filled by callers can wait for items
        await running.upsert(item("a"))
        await put(running, version, {"a": axis(0)})
        await publish(running, version)
        assert hit_ids(await search(running, axis(0))) == ["a"]


# ---- searches


async def test_one_search_asks_several_spaces_and_scores_everything_it_answers_with(retrieval: Retrieval) -> None:
    version = await create(retrieval)
    vectors = {f"i{n}": axis(0, float(n)) + axis(1) for n in range(10)}
    await put(retrieval, version, vectors)
    await publish(retrieval, version)
    request = pb.SearchRequest(
        catalog="default",
        queries=[
            pb.SearchQuery(name="words", text="film number 15 red", limit=3, score_all=True),
            pb.SearchQuery(name="next", vector=wire_vector(axis(0)), space=SPACE, limit=2, score_all=True),
            pb.SearchQuery(
                name="like",
                space=SPACE,
                limit=2,
                examples=pb.Examples(items=[pb.WeightedItem(item_id="i9", weight=1.0)]),
            ),
            pb.SearchQuery(
                name="unknown",
                space=SPACE,
                examples=pb.Examples(items=[pb.WeightedItem(item_id="ghost", weight=1.0)]),
                score_all=True,
            ),
        ],
        hydrate_item_ids=["i19", "i0"],
        vectors_space=SPACE,
    )
    reply = await retrieval.stub.Search(request, timeout=20)
    ids = [found.id for found in reply.items]
    assert hit_ids(reply, 0)[0] == "i15"
    assert hit_ids(reply, 1) == ["i9", "i8"]
    assert hit_ids(reply, 2) == ["i8", "i7"]  # an example is no hit of its own query
    assert {"i19", "i0", "i15"} <= set(ids)
    words, following, like, unknown = reply.results
    for result in (words, following):
        scores = np.asarray(result.all_scores)
        assert len(scores) == len(ids)
        np.testing.assert_array_equal(scores[list(result.item_indices)], np.asarray(result.scores, np.float32))
    assert not np.isnan(list(words.all_scores)).any()
    expected = [vectors[i][0] if i in vectors else np.nan for i in ids]
    np.testing.assert_array_equal(list(following.all_scores), expected)
    assert not like.all_scores
    assert np.isnan(list(unknown.all_scores)).all()
    assert len(unknown.all_scores) == len(ids)
    # Vectors of the space: zeros where an item or a query has none.
    rows, queries = rows_of(reply.item_vectors), rows_of(reply.query_vectors)
    for item_id, row in zip(ids, rows, strict=True):
        np.testing.assert_array_equal(row, vectors.get(item_id, np.zeros(SIZE)))
    np.testing.assert_array_equal(queries[:2], [np.zeros(SIZE), axis(0)])
    assert reply.item_vectors.space_fingerprint == FINGERPRINT


async def test_filters_and_exclusions_hold_in_every_space(retrieval: Retrieval) -> None:
    version = await create(retrieval)
    await put(retrieval, version, {f"i{n}": axis(0, float(n)) for n in range(6)})
    await publish(retrieval, version)
    await retrieval.upsert(item("i5", TITLES["i5"], available=False))
    found = await search(retrieval, axis(0), exclude_item_ids=["i4"], limit=2)
    assert hit_ids(found) == ["i3", "i2"]


async def test_a_search_that_cannot_be_right_is_refused_by_name(retrieval: Retrieval) -> None:
    version = await create(retrieval)
    await put(retrieval, version, {"i1": axis(0)})
    await publish(retrieval, version)
    other = await create(retrieval)
    assert await code_of(search(retrieval, axis(0), space="colours")) == (NOT_FOUND, "SPACE_NOT_FOUND")
    for space in (SPACE, "semantic"):
        call = search(retrieval, axis(0), space=space, space_version=77)
        assert await code_of(call) == (NOT_FOUND, "SPACE_VERSION_NOT_FOUND")
    wrong = pb.SearchQuery(vector=wire_vector(axis(0), "another model"), space=SPACE)
    call = retrieval.stub.Search(pb.SearchRequest(catalog="default", queries=[wrong]))
    assert await code_of(call) == (PRECONDITION, "SPACE_MISMATCH")
    assert set(await violations_of(search(retrieval, np.ones(3)))) == {"queries[0].vector.dimensions"}
    assert set(await violations_of(search(retrieval, axis(0, 1e5)))) == {"queries[0].vector.data"}
    queries = [
        pb.SearchQuery(name="a", vector=wire_vector(axis(0)), space=SPACE, space_version=version.version),
        pb.SearchQuery(name="b", vector=wire_vector(axis(0)), space=SPACE, space_version=other.version),
    ]
    request = pb.SearchRequest(catalog="default", queries=queries, vectors_space=SPACE)
    assert set(await violations_of(retrieval.stub.Search(request))) == {
        "queries[1].space_version",
        "vectors_space_version",
    }
    words = pb.SearchRequest(catalog="default", queries=[pb.SearchQuery(text="a film", space=SPACE)])
    assert set(await violations_of(retrieval.stub.Search(words))) == {"queries[0].text"}
    request = pb.SearchRequest(catalog="default", hydrate_item_ids=["i1"], vectors_space_version=3)
    assert set(await violations_of(retrieval.stub.Search(request))) == {"vectors_space_version"}


# ---- refusals of writes


async def test_vectors_are_put_all_or_none_with_every_violation(retrieval: Retrieval) -> None:
    version = await create(retrieval)
    request = pb.PutVectorsRequest(catalog="default", space=SPACE, version=version.version)
    request.item_ids.extend(["i1", "ghost", "i2", "i1", "", "phantom"])
    rows = np.ones((6, SIZE))
    rows[2, 1], rows[4, 0] = np.nan, np.inf
    request.vectors.CopyFrom(wire_matrix(rows))
    faults = await violations_of(retrieval.stub.PutVectors(request))
    assert set(faults) == {"item_ids[3]", "item_ids[4]", "vectors.data"}
    assert "row 2, 4" in faults["vectors.data"]
    call = put(retrieval, version, {"i1": axis(0), "ghost": axis(0), "phantom": axis(0)})
    assert set(await violations_of(call)) == {"item_ids[1]", "item_ids[2]"}
    assert set(await violations_of(put(retrieval, version, {"i1": np.ones(3)}))) == {"vectors.dimensions"}
    assert set(await violations_of(put(retrieval, version, {"i1": axis(0, 10_001.0)}))) == {"vectors.data"}
    many = pb.PutVectorsRequest(catalog="default", space=SPACE, version=version.version)
    many.item_ids.extend(f"n{n}" for n in range(1001))
    many.vectors.CopyFrom(wire_matrix(np.ones((1001, SIZE))))
    assert set(await violations_of(retrieval.stub.PutVectors(many))) == {"item_ids"}
    assert set(await violations_of(put(retrieval, pb.SpaceVersion(space="semantic", version=1), {"i1": axis(0)}))) == {
        "space"
    }
    foreign = pb.SpaceVersion(space=SPACE, version=version.version, space_fingerprint="another")
    assert await code_of(put(retrieval, foreign, {"i1": axis(0)})) == (PRECONDITION, "SPACE_MISMATCH")
    cosine = await create(retrieval, metric=pb.METRIC_COSINE)
    assert set(await violations_of(put(retrieval, cosine, {"i1": np.zeros(SIZE)}))) == {"vectors.data"}
    assert [v.vector_count for v in await listed(retrieval)] == [20, 0, 0]


async def test_a_version_that_makes_no_sense_is_refused_with_every_violation(retrieval: Retrieval) -> None:
    faults = await violations_of(
        create(retrieval, space="No Name", dimensions=5000, metric=99, space_fingerprint="", centered=True)
    )
    assert set(faults) == {f"space_version.{name}" for name in ("space", "dimensions", "metric", "space_fingerprint")}
    assert set(await violations_of(create(retrieval, space="semantic", centered=True))) == {
        "space_version.space",
        "space_version.centered",
    }
    weights, bias = linear()
    assert set(await violations_of(create(retrieval, bias=bias))) == {"bias"}
    weights[0, 0] = np.inf
    calls = {
        "projection.data": create(retrieval, projection=weights),
        "projection.rows": create(retrieval, projection=weights[1:]),
        "projection.dimensions": create(retrieval, projection=weights[1:, :7], dimensions=SIZE - 1),
        "bias.dimensions": create(retrieval, projection=linear()[0], bias=bias[1:]),
        "source_mean.dimensions": create(retrieval, projection=linear()[0], source_mean=np.ones(3)),
    }
    for field, call in calls.items():
        assert set(await violations_of(call)) == {field}
    too_long = create(retrieval, projection=linear()[0] * 1e4)
    assert set(await violations_of(too_long)) == {"projection.data"}
    request = pb.CreateSpaceVersionRequest(
        catalog="default",
        space_version=pb.SpaceVersion(space=SPACE, dimensions=SIZE, space_fingerprint="x"),
        derived_from_space="colours",
    )
    faults = await violations_of(retrieval.stub.CreateSpaceVersion(request))
    assert set(faults) == {"derived_from_space", "projection"}
    request.derived_from_space = "semantic"
    request.projection.CopyFrom(wire_matrix(linear()[0], "another encoder"))
    assert await code_of(retrieval.stub.CreateSpaceVersion(request)) == (PRECONDITION, "SPACE_MISMATCH")
    assert len(await listed(retrieval)) == 1


# ---- restarts


async def test_spaces_are_there_again_after_a_restart(tmp_path: Path) -> None:
    weights, bias = linear()
    titles = {f"item-{n:05d}": f"title of {n}" for n in range(40)}
    async with running_retrieval(tmp_path) as running:
        await running.upsert(*(item(item_id, title) for item_id, title in titles.items()))
        derived = await create(running, projection=weights, bias=bias)
        cosine = await create(running, space="cosine", metric=pb.METRIC_COSINE, centered=True, projection=weights)
        old = await create(running)
        for version in (derived, cosine, old):
            await put(running, version, {"item-00001": axis(0, 4.0), "item-00002": axis(1, 4.0)})
        for version in (old, derived, cosine):
            await publish(running, version)
        await running.stub.DeleteItems(pb.DeleteItemsRequest(catalog="default", item_ids=["item-00002"]))
        await running.upsert(item("late", "a wholly different title"))
        before = await listed(running)
        assert [v.vector_count for v in before] == [40, 40, 40, 1]
        versions = (derived, cosine, old)
        answers = [
            await search(
                running,
                QUERY,
                space=v.space,
                space_version=v.version,
                vectors_space=v.space,
                vectors_space_version=v.version,
                score_all=True,
            )
            for v in versions
        ]
    async with running_retrieval(tmp_path) as running:
        assert await listed(running) == before
        for version, answer in zip(versions, answers, strict=True):
            again = await search(
                running,
                QUERY,
                space=version.space,
                space_version=version.version,
                vectors_space=version.space,
                vectors_space_version=version.version,
                score_all=True,
            )
            again.search_time.CopyFrom(answer.search_time)
            assert again == answer  # to the bit: a replay is the live path
        await running.upsert(item("latest", "another title"))
        assert len(hit_ids(await search(running, QUERY))) == 41
