"""Attributes inferred from texts, through a real server with a fake encoder."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from tests.retrieval_service.fake_encoder_server import FakeEncoder
from tests.retrieval_service.retrieval_harness import Retrieval, item, many_items, running_retrieval
from zhiyin.common.v1.filter_pb2 import FieldIn, Filter
from zhiyin.common.v1.item_pb2 import AttributeValue, Item
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb

MOOD = """  - name: mood
    threshold: 0.6
    labels:
      - {name: funny, descriptions: [funny comedy, 搞笑]}
      - {name: dark, descriptions: [dark grim, 黑暗]}
"""
TAGS = """  - name: tags
    several: true
    threshold: 0.4
    labels:
      - {name: space, descriptions: [space rocket]}
      - {name: love, descriptions: [love wedding]}
      - {name: war, descriptions: [war army]}
"""
OTHER_MOOD = MOOD.replace("dark grim", "dark grim night")


def settings(tmp_path: Path, attributes: str = MOOD + TAGS) -> dict[str, Any]:
    file = tmp_path / "inferred.yaml"
    file.write_text(f"attributes:\n{attributes}" if attributes else "")
    return {"inferred_attributes_file": file}


@pytest.fixture
async def retrieval(tmp_path: Path) -> AsyncIterator[Retrieval]:
    async with running_retrieval(tmp_path / "data", **settings(tmp_path)) as running:
        yield running


async def stored(retrieval: Retrieval, item_id: str) -> Item:
    return (await retrieval.stub.GetItems(pb.GetItemsRequest(catalog="default", item_ids=[item_id]))).items[0]


def values(found: Item) -> dict[str, Any]:
    def plain(value: AttributeValue) -> Any:
        kind = value.WhichOneof("kind")
        return list(value.string_list_value.values) if kind == "string_list_value" else getattr(value, kind)

    return {name: plain(value) for name, value in found.attributes.items()}


def with_mood(mood: str) -> Filter:
    return Filter(field_in=FieldIn(field="attributes.mood", values=[AttributeValue(string_value=mood)]))


async def test_what_a_text_says_becomes_an_attribute_that_is_marked_and_filterable(retrieval: Retrieval) -> None:
    await retrieval.upsert(
        item("en", "a funny comedy about love in space"),
        item("zh", "黑暗的故事"),
        item("none", "about nothing", attributes={"year": 1999}),
    )
    en, zh, none = [await stored(retrieval, name) for name in ("en", "zh", "none")]
    assert values(en) == {"mood": "funny", "tags": ["love", "space"]}
    assert list(en.inferred) == ["mood", "tags"]
    assert values(zh)["mood"] == "dark"
    assert values(none) == {"year": 1999}
    assert list(none.inferred) == []
    assert await retrieval.search_text("story", filter=with_mood("dark")) == ["zh"]
    listed = await retrieval.stub.ListItems(pb.ListItemsRequest(catalog="default", filter=with_mood("funny")))
    assert "en" in [found.id for found in listed.items]


async def test_what_the_caller_gives_is_the_callers(retrieval: Retrieval) -> None:
    await retrieval.upsert(item("a", "a funny comedy", attributes={"mood": "dark"}))
    found = await stored(retrieval, "a")
    assert values(found)["mood"] == "dark"
    assert "mood" not in found.inferred
    # Given up again, it is inferred although the text is the same.
    await retrieval.upsert(item("a", "a funny comedy"))
    found = await stored(retrieval, "a")
    assert values(found)["mood"] == "funny"
    assert "mood" in found.inferred


async def test_an_item_written_back_as_it_was_read_stays_inferred(retrieval: Retrieval) -> None:
    await retrieval.upsert(item("a", "a funny comedy"))
    read = await stored(retrieval, "a")
    await retrieval.upsert(read)
    again = await stored(retrieval, "a")
    assert list(again.inferred) == list(read.inferred)
    assert values(again) == values(read)
    again.title = "a grim and dark one"
    await retrieval.upsert(again)
    assert values(await stored(retrieval, "a"))["mood"] == "dark"


async def test_other_words_are_inferred_anew_and_the_same_ones_cost_nothing(retrieval: Retrieval) -> None:
    await retrieval.upsert(item("a", "a funny comedy", attributes={"price": 1}))
    calls = retrieval.encoder.classify_calls
    await retrieval.upsert(item("a", "a funny comedy", attributes={"price": 2}, categories=["film"]))
    found = await stored(retrieval, "a")
    assert values(found) == {"mood": "funny", "price": 2}
    assert retrieval.encoder.classify_calls == calls
    await retrieval.upsert(item("a", "grim", attributes={"price": 2}))
    assert values(await stored(retrieval, "a"))["mood"] == "dark"
    assert retrieval.encoder.classify_calls == calls + 2


async def test_masks(retrieval: Retrieval) -> None:
    await retrieval.upsert(item("a", "a funny comedy", attributes={"price": 1}))
    calls = retrieval.encoder.classify_calls

    async def update(changed: Item, *paths: str) -> Item:
        await retrieval.upsert(changed, update_mask=FieldMask(paths=paths))
        return await stored(retrieval, "a")

    found = await update(item("a", categories=["film"]), "categories")
    assert values(found)["mood"] == "funny"
    # `attributes` stands for those the caller gives; what is inferred stays.
    found = await update(item("a", attributes={"price": 2}), "attributes")
    assert (values(found)["price"], values(found)["mood"]) == (2, "funny")
    assert retrieval.encoder.classify_calls == calls
    found = await update(item("a", "grim and dark"), "title")
    assert (values(found)["price"], values(found)["mood"]) == (2, "dark")
    assert "mood" in found.inferred
    found = await update(item("a", attributes={"mood": "mixed"}), "attributes")
    assert values(found)["mood"] == "mixed"
    assert "mood" not in found.inferred
    found = await update(item("a", attributes={}), "attributes")
    assert values(found)["mood"] == "dark"


@pytest.mark.parametrize("path", ["inferred", "inferred_version"])
async def test_marks_cannot_be_changed(retrieval: Retrieval, path: str) -> None:
    await retrieval.upsert(item("a", "a funny comedy"))
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await retrieval.upsert(item("a"), update_mask=FieldMask(paths=[path]))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_items_that_are_there_get_them_by_importing_again(tmp_path: Path) -> None:
    encoder = FakeEncoder()
    comedy = item("a", "a funny comedy")
    async with running_retrieval(tmp_path / "data", encoder) as before:
        await before.upsert(comedy)
        assert not (await stored(before, "a")).attributes
    encoded = len(encoder.texts_encoded)
    async with running_retrieval(tmp_path / "data", encoder, **settings(tmp_path, MOOD)) as running:
        await running.upsert(comedy)
        assert values(await stored(running, "a")) == {"mood": "funny"}
    # Other labels: again. The vector is still that of the text.
    async with running_retrieval(tmp_path / "data", encoder, **settings(tmp_path, OTHER_MOOD)) as running:
        calls = encoder.classify_calls
        await running.upsert(item("a"), update_mask=FieldMask(paths=["categories"]))
        assert encoder.classify_calls == calls
        await running.upsert(comedy)
        assert encoder.classify_calls == calls + 1
        assert (await running.search_text("comedy", filter=with_mood("funny"))) == ["a"]
    # Without the file, importing again takes them away.
    async with running_retrieval(tmp_path / "data", encoder) as after:
        assert values(await stored(after, "a")) == {"mood": "funny"}
        await after.upsert(comedy)
        found = await stored(after, "a")
        assert (values(found), list(found.inferred), found.inferred_version) == ({}, [], "")
    assert [text for text in encoder.texts_encoded[encoded:] if text == "a funny comedy"] == []


async def test_without_classify_a_write_is_refused_and_may_be_repeated(retrieval: Retrieval) -> None:
    retrieval.encoder.classify_failure = grpc.StatusCode.UNAVAILABLE
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await retrieval.upsert(item("a", "a funny comedy"))
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    read = await retrieval.stub.GetItems(pb.GetItemsRequest(catalog="default", item_ids=["a"]))
    assert list(read.missing_item_ids) == ["a"]
    retrieval.encoder.classify_failure = None
    await asyncio.sleep(0.6)  # a neighbour that failed is asked again after half a second
    await retrieval.upsert(item("a", "a funny comedy"))
    assert values(await stored(retrieval, "a"))["mood"] == "funny"
    # What needs neither vector nor label needs no encoder.
    retrieval.encoder.failure = grpc.StatusCode.UNAVAILABLE
    await retrieval.upsert(item("a", "a funny comedy", categories=["film"]))


async def test_an_attribute_that_callers_use_for_something_else_is_left_to_them(retrieval: Retrieval) -> None:
    await retrieval.upsert(item("a", "a funny comedy of war"), item("old", "x", attributes={"mood": 7}))
    assert values(await stored(retrieval, "old"))["mood"] == 7
    found = await stored(retrieval, "a")
    assert values(found) == {"tags": ["war"]}
    assert list(found.inferred) == ["tags"]


async def test_a_full_item_stays_one_that_can_be_written_back(retrieval: Retrieval) -> None:
    await retrieval.upsert(item("a", "a funny comedy", attributes={f"n{i}": i for i in range(64)}))
    found = await stored(retrieval, "a")
    assert len(found.attributes) == 64
    assert list(found.inferred) == []
    await retrieval.upsert(found)


async def test_marks_that_a_write_brings_along_are_kept_where_nothing_is_inferred(tmp_path: Path) -> None:
    async with running_retrieval(tmp_path / "data") as plain:
        brought = item("a", "a funny comedy", attributes={"mood": "funny", "year": 1999})
        brought.inferred.extend(["mood", "nothing"])
        await plain.upsert(brought)
        found = await stored(plain, "a")
        assert values(found) == {"mood": "funny", "year": 1999}
        assert list(found.inferred) == ["mood"]
        assert plain.encoder.classify_calls == 0


async def test_an_import_is_classified_in_parts(retrieval: Retrieval) -> None:
    items = many_items(150)

    async def requests() -> AsyncIterator[pb.ImportItemsRequest]:
        yield pb.ImportItemsRequest(batch_number=1, catalog="default", items=items[:100])
        yield pb.ImportItemsRequest(batch_number=2, items=items[100:])

    async for reply in retrieval.stub.ImportItems(requests(), timeout=30):
        assert reply.WhichOneof("result") == "written", reply
    assert sorted(set(retrieval.encoder.classified)) == sorted(each.title for each in items)
    assert retrieval.encoder.classify_calls == 2 * (4 + 2)
    assert (await stored(retrieval, "item-00000")).inferred_version


async def test_a_check_of_the_batch_alone_writes_nothing(retrieval: Retrieval) -> None:
    await retrieval.upsert(item("a", "a funny comedy"), validate_only=True)
    read = await retrieval.stub.GetItems(pb.GetItemsRequest(catalog="default", item_ids=["a"]))
    assert list(read.missing_item_ids) == ["a"]
