"""Every RPC of RetrievalService over a real channel: what a caller sees, errors included."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import numpy as np
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from service_runtime.attributes import from_proto
from tests.retrieval_service.fake_encoder_server import DIMENSIONS, FakeEncoder, embed
from tests.retrieval_service.retrieval_harness import Retrieval, batches, hit_ids, item, many_items, running_retrieval
from zhiyin.common.v1 import embedding_pb2, filter_pb2, item_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb


@pytest.fixture
async def retrieval(tmp_path: Path) -> AsyncIterator[Retrieval]:
    async with running_retrieval(tmp_path) as running:
        yield running


async def violations_of(call: object) -> dict[str, str]:
    """The violations of a call that must be INVALID_ARGUMENT, by field."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT, caught.value.details()
    status = rpc_status.from_call(caught.value)
    bad = error_details_pb2.BadRequest()
    assert any(detail.Unpack(bad) for detail in status.details)
    return {violation.field: violation.description for violation in bad.field_violations}


async def code_of(call: object) -> tuple[grpc.StatusCode, str]:
    """Status code and stable reason of a call that must fail."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call  # type: ignore[misc]
    info = error_details_pb2.ErrorInfo()
    status = rpc_status.from_call(caught.value)
    assert any(detail.Unpack(info) for detail in status.details)
    return caught.value.code(), info.reason


def words(field: str, *values: str) -> filter_pb2.Filter:
    return filter_pb2.Filter(
        field_in=filter_pb2.FieldIn(field=field, values=[item_pb2.AttributeValue(string_value=v) for v in values])
    )


# ---- writes


async def test_an_item_is_found_by_text_as_soon_as_it_is_written(retrieval: Retrieval) -> None:
    written = await retrieval.upsert(
        item("a", "战争电影 长津湖"), item("b", "jazz album of the year"), item("c", "云南丽江的旅游攻略")
    )
    assert written.sequence == 1
    assert [(r.item_id, r.revision, r.created) for r in written.results] == [
        ("a", 1, True),
        ("b", 1, True),
        ("c", 1, True),
    ]
    assert (await retrieval.search_text("喜欢看电影"))[0] == "a"
    assert (await retrieval.search_text("a jazz album"))[0] == "b"
    assert (await retrieval.search_text("去丽江旅游"))[0] == "c"


async def test_a_bad_batch_is_refused_whole_with_every_violation(retrieval: Retrieval) -> None:
    faults = await violations_of(
        retrieval.upsert(
            item("good"),
            item_pb2.Item(id="", title="no id"),
            item_pb2.Item(id="nothing to encode"),
            item("good", prior=1.5),
            item_pb2.Item(id="odd", title="x", attributes={"Bad Name": item_pb2.AttributeValue(string_value="x")}),
        )
    )
    assert set(faults) == {"items[1].id", "items[2]", "items[3].id", "items[3].prior", "items[4].attributes[Bad Name]"}
    assert (await retrieval.stats()).item_count == 0


async def test_unknown_catalogues_are_not_found_and_empty_names_invalid(retrieval: Retrieval) -> None:
    assert await code_of(retrieval.upsert(item("a"), catalog="nowhere")) == (
        grpc.StatusCode.NOT_FOUND,
        "CATALOG_NOT_FOUND",
    )
    assert "catalog" in await violations_of(retrieval.upsert(item("a"), catalog=""))


async def test_an_unchanged_text_is_not_encoded_again(retrieval: Retrieval) -> None:
    await retrieval.upsert(item("a", "blue song"), item("b", "red film"))
    retrieval.encoder.texts_encoded.clear()
    again = await retrieval.upsert(item("a", "blue song", categories=["music"]), item("b", "red film of the year"))
    assert retrieval.encoder.texts_encoded == ["red film of the year"]
    assert [(r.revision, r.created) for r in again.results] == [(2, False), (2, False)]


async def test_words_that_are_title_and_text_are_encoded_once(retrieval: Retrieval) -> None:
    await retrieval.upsert(item("a", "red film", text=" red film\n"), item("b", "red film", text="a love story"))
    assert retrieval.encoder.texts_encoded == ["red film", "red film\na love story"]


async def test_an_update_mask_changes_only_what_it_names(retrieval: Retrieval) -> None:
    await retrieval.upsert(item("a", "blue song", categories=["music"], language="en", attributes={"price": 3.0}))
    await retrieval.upsert(
        item_pb2.Item(id="a", language="de"), update_mask=FieldMask(paths=["language", "categories"])
    )
    got = (await retrieval.stub.GetItems(pb.GetItemsRequest(catalog="default", item_ids=["a"]))).items[0]
    assert (got.title, got.language, list(got.categories)) == ("blue song", "de", [])
    assert got.attributes["price"].number_value == 3.0
    assert (got.revision, got.sequence) == (2, 2)
    assert await code_of(retrieval.upsert(item("new"), update_mask=FieldMask(paths=["title"]))) == (
        grpc.StatusCode.NOT_FOUND,
        "ITEM_NOT_FOUND",
    )
    faults = await violations_of(retrieval.upsert(item("a"), update_mask=FieldMask(paths=["revision", "no_field"])))
    assert set(faults) == {"update_mask.paths[0]", "update_mask.paths[1]"}


async def test_a_write_with_an_old_revision_is_aborted(retrieval: Retrieval) -> None:
    await retrieval.upsert(item("a", "first"), check_revision=True)
    await retrieval.upsert(item("a", "second", revision=1), check_revision=True)
    assert await code_of(retrieval.upsert(item("a", "third", revision=1), check_revision=True)) == (
        grpc.StatusCode.ABORTED,
        "REVISION_CONFLICT",
    )
    assert await code_of(retrieval.upsert(item("a", "third"), item("b"), check_revision=True)) == (
        grpc.StatusCode.ABORTED,
        "REVISION_CONFLICT",
    )
    assert (await retrieval.stats()).item_count == 1


async def test_validate_only_writes_nothing(retrieval: Retrieval) -> None:
    reply = await retrieval.upsert(item("a"), validate_only=True)
    assert reply.sequence == 0
    assert reply.results[0].created
    assert (await retrieval.stats()).item_count == 0


async def test_a_repeated_request_id_gets_the_first_answer(retrieval: Retrieval) -> None:
    first = await retrieval.upsert(item("a", "first"), request_id="r-1")
    assert await retrieval.upsert(item("a", "first"), request_id="r-1") == first
    assert (await retrieval.stats()).sequence == 1
    assert await code_of(retrieval.upsert(item("a", "other"), request_id="r-1")) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "REQUEST_ALREADY_EXISTS",
    )
    delete = pb.DeleteItemsRequest(catalog="default", item_ids=["a", "zz"], request_id="r-2")
    gone = await retrieval.stub.DeleteItems(delete)
    assert await retrieval.stub.DeleteItems(delete) == gone
    assert (gone.deleted_count, list(gone.missing_item_ids)) == (1, ["zz"])


async def test_an_attribute_keeps_the_type_of_its_first_value(retrieval: Retrieval) -> None:
    await retrieval.upsert(item("a", attributes={"price": 3.0}))
    faults = await violations_of(retrieval.upsert(item("b", attributes={"price": "cheap"})))
    assert "price is a number" in faults["items[0].attributes[price]"]


async def test_created_at_is_kept_and_revision_counts_writes(retrieval: Retrieval) -> None:
    await retrieval.upsert(item("a"))
    first = (await retrieval.stub.GetItems(pb.GetItemsRequest(catalog="default", item_ids=["a"]))).items[0]
    await retrieval.upsert(item("a", "another title"))
    second = (await retrieval.stub.GetItems(pb.GetItemsRequest(catalog="default", item_ids=["a"]))).items[0]
    assert first.created_at == second.created_at
    assert second.updated_at.ToDatetime() >= first.updated_at.ToDatetime()
    assert (first.revision, second.revision) == (1, 2)


async def test_a_dead_encoder_is_unavailable_and_nothing_is_written(retrieval: Retrieval) -> None:
    retrieval.encoder.failure = grpc.StatusCode.INTERNAL
    assert await code_of(retrieval.upsert(item("a"))) == (grpc.StatusCode.UNAVAILABLE, "ENCODER_UNAVAILABLE")
    assert await code_of(retrieval.upsert(*many_items(40))) == (grpc.StatusCode.UNAVAILABLE, "ENCODER_UNAVAILABLE")
    assert await code_of(retrieval.search_text("anything")) == (grpc.StatusCode.UNAVAILABLE, "ENCODER_UNAVAILABLE")
    assert (await retrieval.stats()).item_count == 0
    assert retrieval.service.readiness() is None  # a dependency that fails is not our readiness


async def test_a_batch_that_the_encoder_cannot_do_in_time_is_the_deadline_and_not_worth_a_retry(
    retrieval: Retrieval,
) -> None:
    retrieval.encoder.failure = grpc.StatusCode.DEADLINE_EXCEEDED
    assert await code_of(retrieval.upsert(*many_items(40))) == (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        "DEADLINE_TOO_SHORT",
    )


async def test_another_model_is_refused_naming_both_fingerprints(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path, FakeEncoder("model-one")) as running:
        await running.upsert(item("a", "blue song"))
    async with running_retrieval(tmp_path, FakeEncoder("model-two")) as running:
        assert await code_of(running.upsert(item("b", "red film"))) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "SPACE_MISMATCH",
        )
        assert await code_of(running.search_text("blue")) == (grpc.StatusCode.FAILED_PRECONDITION, "SPACE_MISMATCH")
        vector = embedding_pb2.Embedding(data=embed("blue").tobytes(), dimensions=DIMENSIONS, space_fingerprint="x")
        with pytest.raises(grpc.aio.AioRpcError, match="model-one") as caught:
            await running.stub.Search(pb.SearchRequest(catalog="default", queries=[pb.SearchQuery(vector=vector)]))
        assert "'x'" in caught.value.details()


async def test_a_full_catalogue_says_so(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path, max_items_per_catalog=3) as running:
        await running.upsert(*many_items(3))
        assert await code_of(running.upsert(item("one more"))) == (
            grpc.StatusCode.FAILED_PRECONDITION,
            "CATALOG_FULL",
        )
        await running.upsert(*many_items(3))  # replacing is fine


async def test_a_catalogue_has_a_limit_of_its_own_below_the_servers(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path, max_items_per_catalog=5) as running:

        async def write(*items: item_pb2.Item) -> object:
            return await code_of(running.stub.UpsertItems(pb.UpsertItemsRequest(catalog="small", items=items)))

        small = pb.Catalog(name="small", max_items=2)
        made = await running.stub.CreateCatalog(pb.CreateCatalogRequest(catalog=small))
        assert made.catalog.max_items == 2
        await running.stub.UpsertItems(pb.UpsertItemsRequest(catalog="small", items=many_items(2)))
        full = (grpc.StatusCode.FAILED_PRECONDITION, "CATALOG_FULL")
        assert await write(item("one more")) == full
        await running.upsert(*many_items(3))  # another catalogue's limit is another's
        larger = pb.Catalog(name="small", max_items=1_000)
        mask = FieldMask(paths=["max_items"])
        changed = await running.stub.UpdateCatalog(pb.UpdateCatalogRequest(catalog=larger, update_mask=mask))
        assert changed.catalog.max_items == 1_000
        await running.stub.UpsertItems(pb.UpsertItemsRequest(catalog="small", items=many_items(3, start=10)))
        assert await write(item("one more")) == full, "the server's own limit"
        # Below what is there: nothing goes, changes go on, nothing new comes.
        tiny = pb.Catalog(name="small", max_items=1)
        await running.stub.UpdateCatalog(pb.UpdateCatalogRequest(catalog=tiny, update_mask=mask))
        await running.stub.UpsertItems(pb.UpsertItemsRequest(catalog="small", items=many_items(1)))
        assert await write(item("one more")) == full
    async with running_retrieval(tmp_path) as running:
        read = await running.stub.GetCatalog(pb.GetCatalogRequest(catalog="small"))
        assert read.catalog.max_items == 1


async def test_an_update_names_what_it_changes(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path) as running:
        await running.stub.CreateCatalog(
            pb.CreateCatalogRequest(catalog=pb.Catalog(name="music", display_name="音乐", max_items=7))
        )
        named = pb.Catalog(name="music", display_name="Music")
        mask = FieldMask(paths=["display_name"])
        answer = await running.stub.UpdateCatalog(pb.UpdateCatalogRequest(catalog=named, update_mask=mask))
        assert (answer.catalog.display_name, answer.catalog.max_items) == ("Music", 7)
        wrong = FieldMask(paths=["name", "created_at"])
        assert await code_of(running.stub.UpdateCatalog(pb.UpdateCatalogRequest(catalog=named, update_mask=wrong))) == (
            grpc.StatusCode.INVALID_ARGUMENT,
            "INVALID_REQUEST",
        )
        nobody = pb.UpdateCatalogRequest(catalog=pb.Catalog(name="nobody"))
        assert await code_of(running.stub.UpdateCatalog(nobody)) == (grpc.StatusCode.NOT_FOUND, "CATALOG_NOT_FOUND")


async def test_there_are_no_more_catalogues_than_allowed(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path, max_catalogs=2) as running:

        async def make(name: str) -> object:
            return await code_of(running.stub.CreateCatalog(pb.CreateCatalogRequest(catalog=pb.Catalog(name=name))))

        await running.stub.CreateCatalog(pb.CreateCatalogRequest(catalog=pb.Catalog(name="one")))
        assert await make("two") == (grpc.StatusCode.FAILED_PRECONDITION, "TOO_MANY_CATALOGS")
        await running.stub.DropCatalog(pb.DropCatalogRequest(catalog="default"))  # is emptied and stays
        await running.stub.DropCatalog(pb.DropCatalogRequest(catalog="one"))
        await running.stub.CreateCatalog(pb.CreateCatalogRequest(catalog=pb.Catalog(name="two")))


async def test_an_import_acknowledges_in_order_and_survives_a_bad_batch(retrieval: Retrieval) -> None:
    async def requests() -> AsyncIterator[pb.ImportItemsRequest]:
        yield pb.ImportItemsRequest(batch_number=7, catalog="default", items=many_items(30))
        yield pb.ImportItemsRequest(batch_number=8, items=[item_pb2.Item(id="", title="no id"), item("fine")])
        for i, batch in enumerate(batches(many_items(200, start=30), 20)):
            yield pb.ImportItemsRequest(batch_number=9 + i, items=batch)

    answers = [answer async for answer in retrieval.stub.ImportItems(requests())]
    assert [answer.batch_number for answer in answers] == list(range(7, 19))
    assert answers[1].error.reason == "INVALID_REQUEST"
    assert [v.field for v in answers[1].error.violations] == ["items[0].id"]
    sequences = [answer.written.sequence for answer in answers if answer.WhichOneof("result") == "written"]
    assert sequences == list(range(1, 12))
    stats = await retrieval.stats()
    assert (stats.item_count, stats.indexed_count, stats.applied_sequence) == (230, 230, 11)


async def test_an_import_may_write_the_same_item_in_neighbouring_batches(retrieval: Retrieval) -> None:
    async def requests() -> AsyncIterator[pb.ImportItemsRequest]:
        for i in range(12):
            yield pb.ImportItemsRequest(batch_number=i, catalog="default", items=[item("same", f"{i % 3} title")])

    answers = [answer async for answer in retrieval.stub.ImportItems(requests())]
    assert [answer.written.results[0].revision for answer in answers] == list(range(1, 13))
    assert (await retrieval.stats()).indexed_count == 1


async def test_deleted_items_are_found_no_more(retrieval: Retrieval) -> None:
    await retrieval.upsert(*many_items(50))
    reply = await retrieval.stub.DeleteItems(pb.DeleteItemsRequest(catalog="default", item_ids=["item-00003", "zz"]))
    assert (reply.sequence, reply.deleted_count, list(reply.missing_item_ids)) == (2, 1, ["zz"])
    assert "item-00003" not in await retrieval.search_text("amber film number 3", limit=50)
    missing = await retrieval.stub.GetItems(pb.GetItemsRequest(catalog="default", item_ids=["item-00003"]))
    assert list(missing.missing_item_ids) == ["item-00003"]
    again = await retrieval.stub.DeleteItems(pb.DeleteItemsRequest(catalog="default", item_ids=["item-00003"]))
    assert (again.sequence, again.deleted_count) == (2, 0)
    await retrieval.upsert(item("item-00003", "amber film number 3"))
    assert (await retrieval.search_text("amber film number 3"))[0] == "item-00003"


# ---- reads


async def test_get_items_keeps_the_order_and_the_read_mask(retrieval: Retrieval) -> None:
    await retrieval.upsert(*many_items(5))
    got = await retrieval.stub.GetItems(
        pb.GetItemsRequest(
            catalog="default",
            item_ids=["item-00004", "zz", "item-00001"],
            read_mask=FieldMask(paths=["id", "categories"]),
        )
    )
    assert [i.id for i in got.items] == ["item-00004", "item-00001"]
    assert list(got.missing_item_ids) == ["zz"]
    assert not got.items[0].title
    assert list(got.items[0].categories) == ["film"]


async def test_a_read_mask_may_name_single_attributes(retrieval: Retrieval) -> None:
    await retrieval.upsert(item("a", attributes={"brand": "acme", "price": 3.0, "new": True}), item("b"))
    request = pb.SearchRequest(catalog="default", hydrate_item_ids=["a", "b"])

    async def shown(*paths: str) -> list[dict[str, object]]:
        request.read_mask.CopyFrom(FieldMask(paths=["id", *paths]))
        reply = await retrieval.stub.Search(request)
        assert not any(entry.title for entry in reply.items)
        return [from_proto(entry.attributes) for entry in reply.items]

    assert await shown("attributes.brand", "attributes.never") == [{"brand": "acme"}, {}]
    assert await shown("attributes.brand", "attributes.new") == [{"brand": "acme", "new": True}, {}]
    assert await shown() == [{}, {}]
    assert (await shown("attributes", "attributes.brand"))[0].keys() == {"brand", "price", "new"}
    request.read_mask.CopyFrom(FieldMask(paths=["attributes.", "attributes.No", "title.x"]))
    refused = await violations_of(retrieval.stub.Search(request))
    assert set(refused) == {f"read_mask.paths[{place}]" for place in range(3)}


async def test_lists_page_through_every_item_once_in_the_order_of_ids(retrieval: Retrieval) -> None:
    await retrieval.upsert(*many_items(25), item("é"), item("z"), item("中文"))
    for condition in (None, words("attributes.colour", "red", "blue")):
        seen, token = [], ""
        while True:
            page = await retrieval.stub.ListItems(
                pb.ListItemsRequest(catalog="default", page_size=4, page_token=token, filter=condition)
            )
            assert len(page.items) <= 4
            seen += [i.id for i in page.items]
            token = page.next_page_token
            if not token:
                break
        expected = [
            i.id for i in many_items(25) if condition is None or i.attributes["colour"].string_value in ("red", "blue")
        ]
        expected += [] if condition is not None else ["z", "é", "中文"]
        assert seen == sorted(expected, key=str.encode)
    first = await retrieval.stub.ListItems(pb.ListItemsRequest(catalog="default", page_size=4))
    for request in (
        pb.ListItemsRequest(catalog="default", page_token="nonsense"),
        pb.ListItemsRequest(catalog="default", page_token=first.next_page_token, filter=words("language", "en")),
    ):
        assert "page_token" in await violations_of(retrieval.stub.ListItems(request))


async def test_a_reply_too_large_for_clients_is_refused_or_paged(retrieval: Retrieval) -> None:
    items = [item(f"big-{i:03d}", text="word " * 6500) for i in range(120)]
    for batch in batches(items, 40):
        await retrieval.upsert(*batch)
    ids = [i.id for i in items]
    faults = await violations_of(retrieval.stub.GetItems(pb.GetItemsRequest(catalog="default", item_ids=ids)))
    assert "fewer" in faults["item_ids"]
    page = await retrieval.stub.ListItems(pb.ListItemsRequest(catalog="default", page_size=1000))
    assert 0 < len(page.items) < 120
    assert page.next_page_token
    slim = pb.GetItemsRequest(catalog="default", item_ids=ids, read_mask=FieldMask(paths=["id"]))
    assert len((await retrieval.stub.GetItems(slim)).items) == 120


# ---- search


async def test_one_search_carries_texts_vectors_examples_and_ids_to_hydrate(retrieval: Retrieval) -> None:
    await retrieval.upsert(*many_items(100))
    vector = embedding_pb2.Embedding(
        data=embed("green song number 10").astype("<f2").tobytes(),
        dtype=embedding_pb2.VECTOR_DTYPE_FLOAT16,
        dimensions=DIMENSIONS,
        space_fingerprint="fake-space-1",
    )
    liked = pb.Examples(
        items=[
            pb.WeightedItem(item_id="item-00008", weight=1.0),
            pb.WeightedItem(item_id="zz", weight=1.0),
            pb.WeightedItem(item_id="item-00001", weight=-0.5),
        ]
    )
    response = await retrieval.stub.Search(
        pb.SearchRequest(
            catalog="default",
            queries=[
                pb.SearchQuery(name="text", text="red film number 0", limit=3),
                pb.SearchQuery(name="vector", vector=vector, limit=2),
                pb.SearchQuery(name="like", examples=liked, limit=99),
                pb.SearchQuery(name="unknown", examples=pb.Examples(items=[pb.WeightedItem(item_id="y", weight=1)])),
            ],
            hydrate_item_ids=["item-00050", "nowhere", "item-00051"],
            exclude_item_ids=["item-00051"],
            read_mask=FieldMask(paths=["id", "title"]),
            vectors_space="semantic",
        )
    )
    assert [r.name for r in response.results] == ["text", "vector", "like", "unknown"]
    assert hit_ids(response, 0)[0] == "item-00000"
    assert hit_ids(response, 1)[0] == "item-00010"
    liked_ids = hit_ids(response, 2)
    assert not {"item-00008", "item-00001", "item-00051"} & set(liked_ids)
    assert len(liked_ids) == 97
    assert list(response.results[2].missing_item_ids) == ["zz"]
    assert response.results[3].plan == pb.SEARCH_PLAN_EMPTY
    assert [response.items[i].id for i in response.hydrated_indices] == ["item-00050"]
    assert list(response.missing_item_ids) == ["nowhere"]
    assert list(response.filtered_item_ids) == ["item-00051"]
    assert len({i.id for i in response.items}) == len(response.items)
    assert response.items[0].title
    assert not response.items[0].categories

    matrix = np.frombuffer(response.item_vectors.data, dtype="<f2").reshape(len(response.items), DIMENSIONS)
    asked = np.frombuffer(response.query_vectors.data, dtype="<f2").reshape(4, DIMENSIONS).astype(np.float32)
    np.testing.assert_allclose(np.linalg.norm(matrix.astype(np.float32), axis=1), 1, atol=2e-3)
    assert not asked[3].any()
    for query in range(3):
        hits = matrix[list(response.results[query].item_indices)].astype(np.float32)
        np.testing.assert_allclose(hits @ asked[query], response.results[query].scores, atol=4e-3)


async def test_scores_fall_and_ties_are_in_the_order_of_ids(retrieval: Retrieval) -> None:
    same = [item(f"same-{i:02d}", "exactly the same text") for i in range(40)]
    await retrieval.upsert(*reversed(same), *many_items(30))
    response = await retrieval.stub.Search(
        pb.SearchRequest(catalog="default", queries=[pb.SearchQuery(text="the same text", limit=20)])
    )
    assert hit_ids(response) == [f"same-{i:02d}" for i in range(20)]
    assert len(set(response.results[0].scores)) == 1
    again = await retrieval.stub.Search(
        pb.SearchRequest(catalog="default", queries=[pb.SearchQuery(text="the same text", limit=20)])
    )
    assert hit_ids(again) == hit_ids(response)


async def test_filters_hold_for_every_query_and_for_hydrated_ids(retrieval: Retrieval) -> None:
    await retrieval.upsert(*many_items(80))
    cheap = filter_pb2.Filter(number_range=filter_pb2.NumberRange(field="attributes.price", max=19))
    response = await retrieval.stub.Search(
        pb.SearchRequest(
            catalog="default",
            queries=[
                pb.SearchQuery(name="all", text="blue film", limit=80),
                pb.SearchQuery(name="red", text="blue film", limit=80, filter=words("attributes.colour", "red")),
            ],
            filter=cheap,
            hydrate_item_ids=["item-00005", "item-00050"],
        )
    )
    assert sorted(hit_ids(response, 0)) == [f"item-{i:05d}" for i in range(20)]
    assert sorted(hit_ids(response, 1)) == [f"item-{i:05d}" for i in (0, 8, 16)]
    assert list(response.filtered_item_ids) == ["item-00050"]


async def test_a_filter_of_the_wrong_type_or_field_is_refused(retrieval: Retrieval) -> None:
    await retrieval.upsert(*many_items(3))
    condition = filter_pb2.Filter(
        all_of=filter_pb2.FilterList(
            filters=[
                words("attributes.price", "cheap"),
                filter_pb2.Filter(number_range=filter_pb2.NumberRange(field="attributes.colour", min=1)),
                words("attributes.nobody_has_this", "x"),
            ]
        )
    )
    request = pb.SearchRequest(catalog="default", queries=[pb.SearchQuery(text="x")], filter=condition)
    faults = await violations_of(retrieval.stub.Search(request))
    assert set(faults) == {"filter.all_of.filters[0].field_in", "filter.all_of.filters[1].number_range"}
    deep = filter_pb2.Filter(field_exists=filter_pb2.FieldExists(field="title"))
    for _ in range(9):
        deep = filter_pb2.Filter(negated=deep)
    request = pb.SearchRequest(catalog="default", queries=[pb.SearchQuery(text="x")], filter=deep)
    assert "nested deeper" in " ".join((await violations_of(retrieval.stub.Search(request))).values())


async def test_hidden_and_expired_items_do_not_come_back(retrieval: Retrieval) -> None:
    now = datetime.now(UTC)
    await retrieval.upsert(
        item("plain", "blue song"),
        item("hidden", "blue song", available=False),
        item("later", "blue song", available_from=now + timedelta(hours=1)),
        item("over", "blue song", available_until=now - timedelta(hours=1)),
        item("inside", "blue song", available_from=now - timedelta(hours=1), available_until=now + timedelta(hours=1)),
    )
    assert set(await retrieval.search_text("blue song")) == {"plain", "inside"}
    assert len(await retrieval.search_text("blue song", include_unavailable=True)) == 5
    await retrieval.upsert(item_pb2.Item(id="hidden", available=True), update_mask=FieldMask(paths=["available"]))
    assert set(await retrieval.search_text("blue song")) == {"plain", "inside", "hidden"}


async def test_a_search_waits_for_a_sequence_and_gives_up_at_the_deadline(retrieval: Retrieval) -> None:
    written = await retrieval.upsert(item("a"))
    assert await retrieval.search_text("a", min_sequence=written.sequence) == ["a"]
    request = pb.SearchRequest(catalog="default", queries=[pb.SearchQuery(text="a")], min_sequence=99)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await retrieval.stub.Search(request, timeout=0.4)
    assert caught.value.code() in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED)


async def test_a_bad_search_is_refused_with_every_violation(retrieval: Retrieval) -> None:
    request = pb.SearchRequest(
        catalog="default",
        queries=[
            pb.SearchQuery(name="a", text="  "),
            pb.SearchQuery(name="a", text="x", limit=1001),
            pb.SearchQuery(name="b"),
            pb.SearchQuery(name="c", vector=embedding_pb2.Embedding(data=b"123", dimensions=2)),
            pb.SearchQuery(name="d", examples=pb.Examples(items=[pb.WeightedItem(item_id="x", weight=-1)])),
            pb.SearchQuery(
                name="e", vector=embedding_pb2.Embedding(data=np.full(2, np.nan, "<f4").tobytes(), dimensions=2)
            ),
        ],
        read_mask=FieldMask(paths=["nonsense"]),
    )
    assert set(await violations_of(retrieval.stub.Search(request))) == {
        "queries[0].text",
        "queries[1].name",
        "queries[1].limit",
        "queries[2]",
        "queries[3].vector.data",
        "queries[4].examples.items",
        "queries[5].vector.data",
        "read_mask.paths[0]",
    }
    assert "queries" in await violations_of(retrieval.stub.Search(pb.SearchRequest(catalog="default")))
    await retrieval.upsert(item("a"))
    short = embedding_pb2.Embedding(data=np.ones(2, "<f4").tobytes(), dimensions=2)
    request = pb.SearchRequest(catalog="default", queries=[pb.SearchQuery(vector=short)])
    assert set(await violations_of(retrieval.stub.Search(request))) == {"queries[0].vector.dimensions"}
    request = pb.SearchRequest(catalog="default", queries=[pb.SearchQuery(text="x", space="other")])
    assert await code_of(retrieval.stub.Search(request)) == (grpc.StatusCode.NOT_FOUND, "SPACE_NOT_FOUND")


async def test_the_length_of_a_query_vector_does_not_matter(retrieval: Retrieval) -> None:
    await retrieval.upsert(*many_items(40))
    answers = []
    for length in (1.0, 100.0, 1e-8, 1e30):
        data = (embed("red film") * length).astype("<f4").tobytes()
        vector = embedding_pb2.Embedding(data=data, dimensions=DIMENSIONS)
        request = pb.SearchRequest(catalog="default", queries=[pb.SearchQuery(vector=vector, limit=5)])
        response = await retrieval.stub.Search(request)
        answers.append((hit_ids(response), np.round(response.results[0].scores, 4).tolist()))
    assert all(answer == answers[0] for answer in answers)


async def test_what_exceeds_a_count_is_refused_unread(retrieval: Retrieval) -> None:
    many = pb.SearchRequest(catalog="default", queries=[pb.SearchQuery(name="same", text="x")] * 5000)
    assert len(await violations_of(retrieval.stub.Search(many))) <= 33
    nothing = filter_pb2.Filter(any_of=filter_pb2.FilterList(filters=[filter_pb2.Filter()] * 5000))
    for call in (
        retrieval.stub.ListItems(pb.ListItemsRequest(catalog="default", filter=nothing)),
        retrieval.stub.ListItems(pb.ListItemsRequest(catalog="default", filter=words("id", *["\0"] * 5000))),
        retrieval.stub.GetItems(pb.GetItemsRequest(catalog="default", item_ids=[""] * 5000)),
        retrieval.stub.DeleteItems(pb.DeleteItemsRequest(catalog="default", item_ids=[""] * 5000)),
        retrieval.upsert(*[item_pb2.Item()] * 5000),
        retrieval.stub.ListItems(pb.ListItemsRequest(catalog="default", read_mask=FieldMask(paths=["no"] * 5000))),
    ):
        assert 1 <= len(await violations_of(call)) <= 2100


async def test_an_empty_catalogue_answers_with_nothing(retrieval: Retrieval) -> None:
    response = await retrieval.stub.Search(
        pb.SearchRequest(catalog="default", queries=[pb.SearchQuery(text="anything")], vectors_space="semantic")
    )
    assert not response.items
    assert response.results[0].plan == pb.SEARCH_PLAN_EMPTY


# ---- catalogues, spaces, figures


async def test_catalogues_are_apart_from_each_other(retrieval: Retrieval) -> None:
    made = await retrieval.stub.CreateCatalog(
        pb.CreateCatalogRequest(catalog=pb.Catalog(name="music", display_name="音乐"))
    )
    again = await retrieval.stub.CreateCatalog(
        pb.CreateCatalogRequest(catalog=pb.Catalog(name="music", display_name="音乐"))
    )
    assert made == again
    other = pb.CreateCatalogRequest(catalog=pb.Catalog(name="music", display_name="other"))
    assert await code_of(retrieval.stub.CreateCatalog(other)) == (
        grpc.StatusCode.ALREADY_EXISTS,
        "CATALOG_ALREADY_EXISTS",
    )
    await retrieval.upsert(item("same id", "blue song"))
    await retrieval.upsert(item("same id", "red film", attributes={"price": "free"}), catalog="music")
    await retrieval.upsert(item("b", attributes={"price": 1.0}))  # types are fixed for each catalogue on its own
    assert set(await retrieval.search_text("red film")) == {"same id", "b"}
    assert await retrieval.search_text("red film", catalog="music") == ["same id"]
    names = [c.name for c in (await retrieval.stub.ListCatalogs(pb.ListCatalogsRequest())).catalogs]
    assert names == ["default", "music"]
    first = await retrieval.stub.ListCatalogs(pb.ListCatalogsRequest(page_size=1))
    second = await retrieval.stub.ListCatalogs(pb.ListCatalogsRequest(page_size=1, page_token=first.next_page_token))
    assert [c.name for c in (*first.catalogs, *second.catalogs)] == names
    dropped = await retrieval.stub.DropCatalog(pb.DropCatalogRequest(catalog="music"))
    assert dropped.deleted_item_count == 1
    assert (await code_of(retrieval.search_text("red", catalog="music")))[1] == "CATALOG_NOT_FOUND"
    assert (await code_of(retrieval.stub.GetCatalog(pb.GetCatalogRequest(catalog="music"))))[1] == "CATALOG_NOT_FOUND"
    assert (await retrieval.stub.GetCatalog(pb.GetCatalogRequest(catalog="default"))).catalog.name == "default"
    assert (await retrieval.stats()).item_count == 2


async def test_dropping_default_empties_it_and_its_sequence_goes_on(retrieval: Retrieval) -> None:
    before = (await retrieval.upsert(*many_items(20))).sequence
    assert (await retrieval.stub.DropCatalog(pb.DropCatalogRequest(catalog="default"))).deleted_item_count == 20
    assert await retrieval.search_text("red film") == []
    written = await retrieval.upsert(item("a", "red film"))
    assert written.sequence > before
    assert await retrieval.search_text("red film", min_sequence=before) == ["a"]


async def test_no_revision_or_sequence_of_an_id_comes_twice(retrieval: Retrieval) -> None:
    """Whoever caches by revision must not take the old item for the new one, nor overwrite it with check_revision."""
    created = pb.CreateCatalogRequest(catalog=pb.Catalog(name="music"))
    await retrieval.stub.CreateCatalog(created)
    seen = []
    for word in ("red", "blue", "green"):
        for action in ("delete", "drop"):
            for _ in range(3):
                written = await retrieval.upsert(item("a", f"{word} {action}"), catalog="music")
                seen.append((written.sequence, written.results[0].revision))
            if action == "delete":
                await retrieval.stub.DeleteItems(pb.DeleteItemsRequest(catalog="music", item_ids=["a"]))
            else:
                await retrieval.stub.DropCatalog(pb.DropCatalogRequest(catalog="music"))
                await retrieval.stub.CreateCatalog(created)
    assert seen == sorted(set(seen))
    assert len({revision for _, revision in seen}) == len(seen)
    expected = await retrieval.upsert(item("a"), catalog="music", validate_only=True)
    written = await retrieval.upsert(item("a", "red film"), catalog="music")
    assert written.results == expected.results
    assert await retrieval.search_text("red film", catalog="music", min_sequence=written.sequence) == ["a"]
    old = item("a", "too late", revision=seen[-1][1])
    assert (await code_of(retrieval.upsert(old, catalog="music", check_revision=True)))[1] == "REVISION_CONFLICT"


async def test_space_versions_limits_and_stats_say_what_is_there(retrieval: Retrieval) -> None:
    listed = await retrieval.stub.ListSpaceVersions(pb.ListSpaceVersionsRequest(catalog="default"))
    assert [(v.space, v.version, v.dimensions, v.vector_count) for v in listed.space_versions] == [
        ("semantic", 1, 0, 0)
    ]
    await retrieval.upsert(*many_items(5))
    version = (await retrieval.stub.ListSpaceVersions(pb.ListSpaceVersionsRequest(catalog="default"))).space_versions[0]
    assert (version.dimensions, version.vector_count, version.space_fingerprint) == (DIMENSIONS, 5, "fake-space-1")
    assert version.published
    assert version.centered
    limits = await retrieval.stub.GetLimits(pb.GetLimitsRequest())
    assert (limits.max_items_per_batch, limits.max_queries_per_search, limits.max_hydrated_items) == (1000, 32, 4000)
    assert limits.default_deadline.seconds == 120  # a full batch of long texts is encoded within it
    stats = await retrieval.stats()
    assert (stats.item_count, stats.sequence, stats.applied_sequence, stats.indexed_count) == (5, 1, 1, 5)
    assert (stats.tombstone_count, stats.worker_restarts, stats.queued_writes) == (0, 0, 0)


async def test_everything_is_there_again_after_a_restart(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path) as running:
        await running.upsert(*many_items(120))
        await running.stub.DeleteItems(pb.DeleteItemsRequest(catalog="default", item_ids=["item-00007"]))
        await running.upsert(item("item-00008", "a wholly different title"))
        before = await running.search_text("blue song number 81", limit=50)
        vectors = await running.stub.Search(
            pb.SearchRequest(catalog="default", hydrate_item_ids=["item-00008"], vectors_space="semantic")
        )
    async with running_retrieval(tmp_path) as running:
        assert await running.search_text("blue song number 81", limit=50) == before
        assert (await running.search_text("a wholly different title"))[0] == "item-00008"
        again = await running.stub.Search(
            pb.SearchRequest(catalog="default", hydrate_item_ids=["item-00008"], vectors_space="semantic")
        )
        assert again.item_vectors == vectors.item_vectors  # the same mean: replay equals live
        stats = await running.stats()
        assert (stats.item_count, stats.indexed_count, stats.sequence) == (119, 119, 3)
        assert (await running.upsert(item("new one"))).sequence == 4


async def test_items_come_from_the_store_when_the_cache_is_small(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path, item_cache_bytes=2_000) as running:
        await running.upsert(*many_items(100))
        response = await running.stub.Search(
            pb.SearchRequest(
                catalog="default",
                queries=[pb.SearchQuery(text="red", limit=100)],
                read_mask=FieldMask(paths=["id", "title"]),
            )
        )
        assert len(response.items) == 100
        assert all(i.title for i in response.items)
