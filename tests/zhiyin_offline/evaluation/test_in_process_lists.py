"""Lists made in this process against those of a real ranking and a real retrieval service over gRPC."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import numpy as np
import pytest

from ranking_service.attribute_features.attribute_features import AttributeFeatures
from ranking_service.bundles.bundle import (
    FEATURES_FILE,
    RANKER_FILE,
    SEQUENCE_FILE,
    SEQUENCE_ITEMS_FILE,
    Manifest,
    write_bundle,
)
from ranking_service.bundles.loading import serving_bundle
from ranking_service.bundles.sequence_files import SPACE, sequence_model
from ranking_service.bundles.serving_bundle import ServingBundle
from ranking_service.scorers.features import NAMES, SOURCES
from ranking_service.scorers.scorer import BuiltinScorer
from ranking_service.scorers.source_weights import source_weights
from ranking_service.service import RankingService
from ranking_service.settings import RankingSettings
from ranking_service.users.event import EventContext
from service_runtime.attributes import to_proto
from service_runtime.server import running_server
from tests.retrieval_service.retrieval_harness import Retrieval, running_retrieval
from tests.zhiyin_offline.training.chain_world import (
    FINGERPRINT,
    HOUR,
    START,
    STEPS,
    chain_vectors,
    chain_world,
    short_sequence_training,
)
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceStub
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceStub
from zhiyin_offline.evaluation.dataset import Dataset, EventRows
from zhiyin_offline.evaluation.in_process import RecordedService
from zhiyin_offline.evaluation.memory_catalog import SEMANTIC, MemoryCatalog, Space, semantic_space
from zhiyin_offline.evaluation.methods import Lists
from zhiyin_offline.evaluation.protocols import Case, done_with, leave_one_out, user_rows
from zhiyin_offline.training import publishing
from zhiyin_offline.training.attributes.attributes_step import with_attributes
from zhiyin_offline.training.attributes.learn_spec import learn_spec
from zhiyin_offline.training.blend_table import BlendTable
from zhiyin_offline.training.examples import collect
from zhiyin_offline.training.fusion import fit_weights
from zhiyin_offline.training.ranker import train_ranker

if TYPE_CHECKING:
    from zhiyin_offline.training.sequence_step import SequencePart

NOW = START + (STEPS + 5) * HOUR
SAMPLE, K = 25, 20


def varied_world() -> Dataset:
    """The chain, with events of other types on top, some of them against an item or about none.

    Items and users have attributes, events took place in circumstances.
    """
    chain = chain_world()
    for number, item in enumerate(chain.items):
        to_proto({"brand": "xyz"[number % 3], "tags": ("a", "bcd"[number % 3])}, item.attributes)
        if number % 4:
            to_proto({"height": float(number % 10)}, item.attributes)
    users = {user: pb.User(id=user) for user in chain.user_ids[::2]}
    for number, user in enumerate(users.values()):
        to_proto({"city": ("rome", "oslo")[number % 2], "age": 20.0 + number}, user.attributes)
    rows, random = EventRows(chain.item_numbers), np.random.default_rng(4)
    events = chain.events
    for row in range(len(events)):
        user, time = int(events.user[row]), float(events.time[row])
        context = EventContext(("en", "zh")[row % 2], None, ("phone", "tv")[user % 2], "home")
        rows.add(user, f"i{events.item[row]}", int(events.event_type[row]), None, time, context)
    for number in range(250):
        kind, value = [
            (pb.EVENT_TYPE_DISLIKE, None),
            (pb.EVENT_TYPE_VIEW, 0.5),
            (pb.EVENT_TYPE_VIEW, 0.95),
            (pb.EVENT_TYPE_RATING, 5.0),
            (pb.EVENT_TYPE_RATING, 1.0),
            (pb.EVENT_TYPE_CLICK, None),
            (pb.EVENT_TYPE_PURCHASE, 20.0),
            (pb.EVENT_TYPE_HIDE, None),
            (pb.EVENT_TYPE_IMPRESSION, None),
            (pb.EVENT_TYPE_SKIP, None),
        ][number % 10]
        user, item = int(random.integers(len(chain.user_ids))), f"i{random.integers(len(chain.items))}"
        rows.add(user, item, kind, value, START + STEPS * HOUR + number)
    return replace(chain, users=users, events=rows.events())


WORLD = varied_world()
VECTORS = chain_vectors(WORLD)
DONE = done_with(WORLD)


def cases() -> list[Case]:
    """A sample of users with all that they did."""
    drawn = np.random.default_rng(0).permutation(len(WORLD.user_ids))[:SAMPLE]
    by_user = user_rows(WORLD)
    return [Case(int(user), 0, 0, NOW, by_user[user]) for user in drawn]


@contextlib.asynccontextmanager
async def real_pair(folder: Path) -> AsyncIterator[tuple[RankingServiceStub, Retrieval]]:
    """Both services with the catalogue and all events in them."""
    async with running_retrieval(folder / "retrieval") as retrieval:
        await retrieval.upsert(*WORLD.items)
        settings = RankingSettings(
            port=0,
            data_dir=folder / "ranking",
            retrieval_address=retrieval.address,
            encoder_address=retrieval.address,  # nobody has a text
            drain_delay_s=0,
            grace_s=1,
        )
        async with (
            running_server(RankingService(settings), settings) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            stub = RankingServiceStub(channel)
            await stub.UpsertUsers(pb.UpsertUsersRequest(catalog="default", users=WORLD.users.values()), timeout=20)
            events = recorded_events()
            for start in range(0, len(events), 500):
                batch = pb.RecordEventsRequest(catalog="default", events=events[start : start + 500])
                await stub.RecordEvents(batch, timeout=20)
            yield stub, retrieval


def recorded_events() -> list[pb.Event]:
    made, events = [], WORLD.events
    for row in range(len(events)):
        # An event that says nothing about an item has none in the record; the service wants one.
        item = WORLD.item_ids[max(int(events.item[row]), 0)]
        made.append(pb.Event(user_id=WORLD.user_ids[events.user[row]], item_id=item, type=int(events.event_type[row])))
        if not np.isnan(events.value[row]):
            made[-1].value = float(events.value[row])
        made[-1].time.FromNanoseconds(round(float(events.time[row]) * 1e6) * 1_000)
    return made


async def served(stub: RankingServiceStub, case: Case, diversity: float) -> tuple[list[str], str]:
    """A user's list over gRPC, and the bundle that made it."""
    items = np.unique(WORLD.events.item[case.history[DONE[case.history]]])
    request = pb.RecommendRequest(
        catalog="default",
        user_id=WORLD.user_ids[case.user],
        excluded_item_ids=[WORLD.item_ids[i] for i in items if i >= 0],
        include_seen=False,
        diversity=diversity,
        page_size=K,
    )
    context = WORLD.events.context_of(case.target_row)
    request.context.locale, request.context.device, request.context.place = (
        context.locale,
        context.device,
        context.place,
    )
    request.context.time.FromNanoseconds(round(case.now * 1e6) * 1_000)
    reply = await stub.Recommend(request, timeout=20)
    assert not reply.degraded
    return [entry.item.id for entry in reply.items], reply.versions.bundle


async def assert_equal_lists(stub: RankingServiceStub, own: RecordedService, bundle: str, diversity: float) -> Lists:
    mine = await asyncio.to_thread(own.lists, cases(), K, diversity)  # it runs an event loop of its own
    for case, row in zip(cases(), mine, strict=True):
        theirs, by = await served(stub, case, diversity)
        assert by == bundle
        assert [WORLD.item_ids[i] for i in row if i >= 0] == theirs
    return mine


def in_process(spaces: Mapping[str, Space] | None = None, bundle=None) -> RecordedService:
    catalog = MemoryCatalog(WORLD.items, {SEMANTIC: semantic_space(VECTORS, FINGERPRINT), **(spaces or {})})
    service = RecordedService(WORLD, catalog, bundle=bundle)
    service.statistics.fold(np.arange(len(WORLD.events)))
    return service


@pytest.mark.parametrize("diversity", [0.0, 0.3])
async def test_lists_before_any_training_are_those_of_the_services(tmp_path: Path, diversity: float) -> None:
    async with real_pair(tmp_path) as (stub, _):
        await assert_equal_lists(stub, in_process(), "builtin", diversity)


async def test_lists_of_a_bundle_are_those_of_the_services(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A learned ranker over learned weights over all sources, a sequence model in a derived space among them."""
    short_sequence_training(monkeypatch)
    manifest, files, part = await asyncio.to_thread(learned_bundle)
    async with real_pair(tmp_path) as (stub, retrieval):
        with grpc.insecure_channel(retrieval.address) as channel:
            version = await asyncio.to_thread(
                publishing.publish_sequence,
                RetrievalServiceStub(channel),
                "default",
                part,
                semantic_space(VECTORS, FINGERPRINT),
                manifest.id,
            )
        manifest = replace(manifest, spaces={SPACE: version})
        write_bundle(tmp_path / "ranking" / "bundles" / "default", manifest, files)
        await stub.ActivateBundle(pb.ActivateBundleRequest(catalog="default", bundle_id=manifest.id), timeout=20)
        own = in_process({SPACE: part.space}, serving_bundle(manifest, files))
        learned = await assert_equal_lists(stub, own, manifest.id, 0.0)
        await assert_equal_lists(stub, own, manifest.id, 0.3)
        await stub.ActivateBundle(pb.ActivateBundleRequest(catalog="default", bundle_id="builtin"), timeout=20)
        builtin = await assert_equal_lists(stub, in_process(), "builtin", 0.0)
    assert (learned != builtin).any(axis=1).mean() > 0.8  # it is really the bundle that orders


def learned_bundle() -> tuple[Manifest, dict[str, bytes], SequencePart]:
    """Everything that a bundle can hold, whether or not it would be chosen on so few users."""
    from zhiyin_offline.training.sequence_step import learn_sequences

    split, semantic = leave_one_out(WORLD), semantic_space(VECTORS, FINGERPRINT)
    learned = learn_sequences(WORLD, semantic.rows, split.training, split.cases, 0, "cpu", None, lambda *_: None)
    assert learned is not None
    part = learned.serving
    model = sequence_model(part.files[SEQUENCE_FILE], part.files[SEQUENCE_ITEMS_FILE], 1)
    asking = in_process({SPACE: part.space}, ServingBundle("asking", BuiltinScorer(source_weights), model))
    attributes = AttributeFeatures(learn_spec(WORLD, split.training))
    assert set(attributes.items.attributes) == {"brand", "tags", "height"}
    assert {"user.attributes.city", "user.attributes.age", "context.device"} <= set(attributes.spec.names)
    examples = with_attributes(collect(asking, WORLD, split.cases, lambda _: None), attributes, WORLD)
    weights = fit_weights(BlendTable.of(examples))
    ranker = train_ranker(examples, weights, seed=0)
    assert ranker is not None
    named = {kind.name.lower(): float(weight) for kind, weight in zip(SOURCES, weights, strict=True) if weight > 0}
    assert "sequence" in named
    columns = NAMES + attributes.spec.names
    manifest = Manifest("learned-1", "default", 1e9, "ranker", named, rerank_depth=30, feature_names=columns)
    files = {RANKER_FILE: ranker.encode(), FEATURES_FILE: attributes.spec.to_json(), **part.files}
    return manifest, files, part
