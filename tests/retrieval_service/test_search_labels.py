"""Labels of a Search over a real channel, against a walk over the items."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest
from google.protobuf.field_mask_pb2 import FieldMask
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.retrieval_service.retrieval_harness import Retrieval, item, many_items, running_retrieval
from zhiyin.common.v1 import filter_pb2, item_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb

CATALOGUE = [*many_items(60), item("hidden", available=False), item("odd one")]


@pytest.fixture
async def retrieval(tmp_path: Path) -> AsyncIterator[Retrieval]:
    async with running_retrieval(tmp_path) as running:
        yield running


def words(field: str, *values: str) -> filter_pb2.Filter:
    return filter_pb2.Filter(
        field_in=filter_pb2.FieldIn(field=field, values=[item_pb2.AttributeValue(string_value=v) for v in values])
    )


def cheap(limit: float) -> filter_pb2.Filter:
    return filter_pb2.Filter(number_range=filter_pb2.NumberRange(field="attributes.price", max=limit))


def negated(condition: filter_pb2.Filter) -> filter_pb2.Filter:
    return filter_pb2.Filter(negated=condition)


def label(name: str, condition: filter_pb2.Filter | None = None, add: int = 0) -> pb.NamedFilter:
    return pb.NamedFilter(name=name, filter=condition, add=add)


async def search(retrieval: Retrieval, **fields: object) -> pb.SearchResponse:
    return await retrieval.stub.Search(pb.SearchRequest(catalog="default", **fields), timeout=20)


def labelled(response: pb.SearchResponse) -> dict[str, list[str]]:
    """Ids by label, in the order of the reply."""
    return {entry.name: [response.items[i].id for i in entry.item_indices] for entry in response.labels}


def added(response: pb.SearchResponse) -> dict[str, list[str]]:
    return {entry.name: [response.items[i].id for i in entry.added_indices] for entry in response.labels}


async def test_labels_say_which_items_of_the_reply_match_and_keep_none_out(retrieval: Retrieval) -> None:
    await retrieval.upsert(*CATALOGUE)
    query = pb.SearchQuery(text="a red film", limit=20)
    plain = await search(retrieval, queries=[query], hydrate_item_ids=["item-00001", "hidden"])
    response = await search(
        retrieval,
        queries=[query],
        hydrate_item_ids=["item-00001", "hidden"],
        labels=[label("red", words("attributes.colour", "red")), label("all"), label("none", words("language", "xx"))],
        read_mask=FieldMask(paths=["id", "attributes"]),
    )
    assert [entry.id for entry in response.items] == [entry.id for entry in plain.items]
    red = [e.id for e in response.items if e.attributes["colour"].string_value == "red"]
    assert red
    assert labelled(response) == {"red": red, "all": [e.id for e in response.items], "none": []}
    assert list(response.labels[0].item_indices) == sorted(response.labels[0].item_indices)
    assert all(not entry.added_indices for entry in response.labels)


async def test_a_label_adds_the_best_priors_that_pass_the_request(retrieval: Retrieval) -> None:
    soon, past = datetime.now(UTC) + timedelta(hours=1), datetime.now(UTC) - timedelta(hours=1)
    offers = [
        item("best", categories=["offer"], prior=0.9),
        item("second", categories=["offer"], prior=0.8),
        item("unsaid", categories=["offer"]),
        item("poor", categories=["offer"], prior=0.1),
        item("off", categories=["offer"], prior=1.0, available=False),
        item("not yet", categories=["offer"], prior=1.0, available_from=soon),
        item("gone", categories=["offer"], prior=1.0, available_until=past),
        item("dear", categories=["offer"], prior=1.0, attributes={"price": 500.0}),
        item("excluded", categories=["offer"], prior=1.0),
        item("other", prior=1.0),
    ]
    await retrieval.upsert(*offers)
    response = await search(
        retrieval,
        filter=negated(filter_pb2.Filter(number_range=filter_pb2.NumberRange(field="attributes.price", min=100))),
        exclude_item_ids=["excluded", *(f"nobody-{i}" for i in range(100))],
        hydrate_item_ids=["second"],
        labels=[label("offer", words("categories", "offer"), 3), label("rest", words("categories", "offer"))],
        vectors_space="semantic",
    )
    assert added(response) == {"offer": ["best", "unsaid"], "rest": []}
    assert [entry.id for entry in response.items] == ["second", "best", "unsaid"]
    assert labelled(response) == {name: ["second", "best", "unsaid"] for name in ("offer", "rest")}
    assert response.item_vectors.rows == 3
    everything = await search(
        retrieval, labels=[label("offer", words("categories", "offer"), 2)], include_unavailable=True
    )
    assert set(added(everything)["offer"]) < {"off", "not yet", "gone", "dear", "excluded"}


async def test_a_label_follows_the_items(retrieval: Retrieval) -> None:
    await retrieval.upsert(item("a", prior=0.9), item("b", prior=0.1))
    best = {"labels": [label("best", add=1)]}
    assert added(await search(retrieval, **best)) == {"best": ["a"]}
    await retrieval.upsert(item("a", prior=0.05))
    assert added(await search(retrieval, **best)) == {"best": ["b"]}
    await retrieval.stub.DeleteItems(pb.DeleteItemsRequest(catalog="default", item_ids=["b"]))
    assert added(await search(retrieval, **best)) == {"best": ["a"]}


async def test_an_item_that_two_labels_add_is_in_the_reply_once(retrieval: Retrieval) -> None:
    await retrieval.upsert(*CATALOGUE)
    response = await search(retrieval, labels=[label("a", cheap(5), 2), label("b", cheap(5), 2)])
    assert len(response.items) == 2
    assert added(response)["a"] == added(response)["b"]
    again = await search(retrieval, labels=[label("a", cheap(5), 2), label("b", cheap(5), 2)])
    assert added(again) == added(response), "the same state gives the same answer"


async def test_every_fault_of_labels_is_named(retrieval: Retrieval) -> None:
    await retrieval.upsert(*CATALOGUE)

    async def faults(*labels: pb.NamedFilter) -> dict[str, str]:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await search(retrieval, labels=labels)
        assert caught.value.code() is grpc.StatusCode.INVALID_ARGUMENT
        bad = error_details_pb2.BadRequest()
        assert any(detail.Unpack(bad) for detail in rpc_status.from_call(caught.value).details)
        return {violation.field: violation.description for violation in bad.field_violations}

    found = await faults(
        label("twice"),
        label("twice", words("nonsense", "x")),
        label("n" * 129, add=101),
        label("nested", filter_pb2.Filter(any_of=filter_pb2.FilterList(filters=[words("", "x")]))),
    )
    assert found.keys() == {
        "labels[1].name",
        "labels[1].filter.field_in.field",
        "labels[2].name",
        "labels[2].add",
        "labels[3].filter.any_of.filters[0].field_in.field",
    }
    assert (await faults(label("typed"), label("price", words("attributes.price", "x")))).keys() == {
        "labels[1].filter.field_in"
    }
    assert (await faults(*(label(str(i)) for i in range(257)))).keys() == {"labels"}


conditions = st.recursive(
    st.one_of(
        st.just(filter_pb2.Filter()),
        st.sampled_from(["red", "blue", "nothing"]).map(lambda word: words("attributes.colour", word)),
        st.sampled_from(["film", "song", "travel"]).map(lambda word: words("categories", word)),
        st.integers(-1, 60).map(lambda limit: cheap(float(limit))),
        st.sampled_from(["item-00003", "hidden", "no such item"]).map(lambda i: words("id", i)),
    ),
    lambda inner: st.one_of(
        inner.map(negated),
        st.lists(inner, max_size=2).map(lambda parts: filter_pb2.Filter(all_of=filter_pb2.FilterList(filters=parts))),
        st.lists(inner, max_size=2).map(lambda parts: filter_pb2.Filter(any_of=filter_pb2.FilterList(filters=parts))),
    ),
    max_leaves=4,
)


def holds(condition: filter_pb2.Filter, entry: item_pb2.Item) -> bool:
    kind = condition.WhichOneof("condition")
    if kind is None:
        return True
    if kind == "negated":
        return not holds(condition.negated, entry)
    if kind == "all_of":
        return all(holds(part, entry) for part in condition.all_of.filters)
    if kind == "any_of":
        return any(holds(part, entry) for part in condition.any_of.filters)
    if kind == "number_range":
        price = entry.attributes.get("price")
        return price is not None and price.number_value <= condition.number_range.max
    wanted = {value.string_value for value in condition.field_in.values}
    if condition.field_in.field == "id":
        return entry.id in wanted
    if condition.field_in.field == "categories":
        return bool(wanted & set(entry.categories))
    return "colour" in entry.attributes and entry.attributes["colour"].string_value in wanted


def test_labels_are_what_a_walk_over_the_items_says(tmp_path: Path) -> None:
    catalogue = {entry.id: entry for entry in CATALOGUE}
    for i, entry in enumerate(CATALOGUE[:40]):
        entry.prior = i % 7 / 6
    available = [entry for entry in CATALOGUE if entry.id != "hidden"]

    def rank(entry: item_pb2.Item) -> float:
        return entry.prior if entry.HasField("prior") else 0.5

    with asyncio.Runner() as runner:
        running = running_retrieval(tmp_path)
        retrieval = runner.run(running.__aenter__())
        runner.run(retrieval.upsert(*CATALOGUE))

        @settings(max_examples=80, deadline=None)
        @given(
            common=conditions,
            asked=st.lists(st.tuples(conditions, st.integers(0, 8)), min_size=1, max_size=4),
            hydrate=st.lists(st.sampled_from(sorted(catalogue)), max_size=6),
            exclude=st.sets(st.sampled_from(sorted(catalogue)), max_size=20),
        )
        def check(
            common: filter_pb2.Filter,
            asked: list[tuple[filter_pb2.Filter, int]],
            hydrate: list[str],
            exclude: set[str],
        ) -> None:
            labels = [label(str(i), condition, add) for i, (condition, add) in enumerate(asked)]
            response = runner.run(
                search(
                    retrieval,
                    filter=common,
                    labels=labels,
                    hydrate_item_ids=hydrate,
                    exclude_item_ids=sorted(exclude),
                    queries=[pb.SearchQuery(text="red film", limit=5)],
                )
            )
            ids = [entry.id for entry in response.items]
            assert len(ids) == len(set(ids))
            found = {ids[i] for i in (*response.results[0].item_indices, *response.hydrated_indices)}
            passing = [entry for entry in available if entry.id not in exclude and holds(common, entry)]
            brought: set[str] = set()
            for (condition, add), entry in zip(asked, response.labels, strict=True):
                matching = [e for e in passing if holds(condition, e)]
                expected = [i for i in ids if holds(condition, catalogue[i])]
                assert [ids[i] for i in entry.item_indices] == expected
                best = sorted((rank(e) for e in matching), reverse=True)[:add]
                chosen = [ids[i] for i in entry.added_indices]
                assert not found & set(chosen)
                ranks = [rank(catalogue[i]) for i in chosen]
                assert ranks == sorted(ranks, reverse=True)
                # With those that were found anyway it is the best `add`.
                reachable = sorted((rank(catalogue[i]) for i in expected), reverse=True)[: len(best)]
                assert reachable == best
                assert len(chosen) <= add
                assert set(chosen) <= {e.id for e in matching}
                brought |= set(chosen)
            assert set(ids) == found | brought, "nothing comes back unasked"

        try:
            check()
        finally:
            runner.run(running.__aexit__(None, None, None))
