"""What a training makes of attributes and circumstances: it finds what decides, and reads nothing of the future."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Literal

import numpy as np
import pytest
from numpy.typing import NDArray

from ranking_service.attribute_features.attribute_features import AttributeFeatures
from ranking_service.attribute_features.feature_spec import FeatureSpec, Side
from ranking_service.bundles.bundle import FEATURES_FILE, RANKER_FILE, Manifest
from ranking_service.bundles.loading import serving_bundle
from ranking_service.candidate import Floats
from ranking_service.pipeline import Judged
from ranking_service.scorers.features import NAMES, SOURCES
from ranking_service.scorers.tree_ranker import TreeRanker
from ranking_service.users.event import EventContext
from service_runtime.attributes import AttributeScalar, to_proto
from tests.zhiyin_offline.evaluation.recorded import renumbered
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin_offline.evaluation.dataset import Dataset, EventRows
from zhiyin_offline.evaluation.in_process import RecordedService
from zhiyin_offline.evaluation.memory_catalog import SEMANTIC, MemoryCatalog, semantic_space
from zhiyin_offline.evaluation.protocols import Split, leave_one_out, time_split
from zhiyin_offline.training.attributes.attributes_step import AttributesChoice, choose_attributes, with_attributes
from zhiyin_offline.training.attributes.item_fields import item_fields
from zhiyin_offline.training.attributes.learn_spec import learn_spec
from zhiyin_offline.training.attributes.sides import known_sides
from zhiyin_offline.training.blend_table import BlendTable
from zhiyin_offline.training.examples import Example, collect
from zhiyin_offline.training.fusion import fit_weights
from zhiyin_offline.training.ranker import DEPTH, ranked, train_ranker

START, HOUR = 1_750_000_000.0, 3_600.0
BRANDS, ITEMS, USERS, EVENTS = ("acme", "zeta", "kilo", "nova"), 120, 300, 4
FEW = 80
LIFT = "user.attributes.city.lift.attributes.brand"
Protocol = Literal["leave-one-out", "time-split"]


def item(number: int, brand: str, **attributes: AttributeScalar) -> Item:
    made = Item(id=f"i{number}", title=f"thing {number}", categories=["things"])
    made.created_at.FromSeconds(int(START) - 400 * 86_400)
    to_proto({"brand": brand, "sku": f"sku-{number}", **attributes}, made.attributes)
    return made


@cache
def city_world(decides: str) -> Dataset:
    """Whoever lives in a city, or uses a device, likes the things of one brand; nothing else tells things apart."""
    random = np.random.default_rng(5)
    items = tuple(item(n, BRANDS[n % 4], price=float(random.integers(1, 100))) for n in range(ITEMS))
    rows, users = EventRows({entry.id: n for n, entry in enumerate(items)}), {}
    for user in range(USERS):
        profile = pb.User(id=f"u{user}")
        to_proto({"city": f"city {user % 4}", "token": f"token {user}"}, profile.attributes)
        users[profile.id] = profile
        for step in range(EVENTS):
            device = int(random.integers(4))
            likes = user % 4 if decides == "city" else device
            brand = likes if random.random() < 0.9 else int(random.integers(4))
            number = int(random.integers(ITEMS // 4)) * 4 + brand
            context = EventContext("en", None, f"device {device}")
            time = START + (step * USERS + user) * HOUR / 10
            rows.add(user, f"i{number}", pb.EVENT_TYPE_LIKE, None, time, context)
    return Dataset(items, tuple(users), users, rows.events())


def without_words() -> NDArray[np.float32]:
    """Vectors that say nothing of brands."""
    return np.random.default_rng(1).standard_normal((ITEMS, 8)).astype(np.float32)


def service_of(dataset: Dataset, split: Split) -> RecordedService:
    service = RecordedService(
        dataset, MemoryCatalog(dataset.items, {SEMANTIC: semantic_space(without_words(), "words")})
    )
    service.statistics.fold(split.training)
    return service


def collected(dataset: Dataset, split: Split) -> list[Example]:
    return collect(service_of(dataset, split), dataset, split.cases, lambda _: None)


@cache
def chosen(decides: str) -> AttributesChoice:
    """What a training makes of such a world."""
    dataset = city_world(decides)
    split = leave_one_out(dataset)
    return choose_attributes(dataset, split.training, collected(dataset, split), seed=0, threads=1)


def read(dataset: Dataset, split: Split) -> tuple[FeatureSpec, list[Floats]]:
    """What is learned to be read, and the columns of some cases."""
    spec = learn_spec(dataset, split.training)
    few = collected(dataset, replace(split, cases=split.cases[:FEW]))
    examples = with_attributes(few, AttributeFeatures(spec), dataset)
    return spec, [example.columns[:, len(NAMES) :].astype(np.float32) for example in examples]


@pytest.mark.parametrize(("decides", "lift"), [("city", LIFT), ("device", "context.device.lift.attributes.brand")])
def test_what_decides_is_found_and_lets_a_ranker_find_more(decides: str, lift: str) -> None:
    choice = chosen(decides)
    assert choice.features is not None
    assert lift in choice.names
    figures = choice.evidence["ndcg@10"]
    assert isinstance(figures, dict)
    assert figures["with"] > 1.2 * figures["without"]
    table = next(entry.table for entry in choice.features.spec.lifts if entry.name == lift)
    for number, brand in enumerate(BRANDS):
        told = table[f"{decides} {number}"]
        assert max(told, key=lambda word: told[word]) == brand
    assert all(example.columns.shape[1] == len(NAMES) + len(choice.names) for example in choice.examples)


def test_what_says_nothing_is_not_read() -> None:
    """Numbers that each item or user has alone, categories that all have, a language that all speak."""
    dataset = city_world("city")
    spec = learn_spec(dataset, leave_one_out(dataset).training)
    assert [entry.name for entry in spec.words] == ["categories", "attributes.brand"]
    assert [entry.name for entry in spec.numbers] == ["attributes.price"]
    assert {side.name for side in spec.sides} == {"user.attributes.city", "context.device", "context.daypart"}
    unread = {"categories.share", "attributes.price.given", "context.daypart", "context.language_match"}
    assert not unread & set(chosen("city").names)


def test_where_nothing_is_told_nothing_is_read() -> None:
    dataset = city_world("city")
    bare = tuple(Item(id=entry.id, title=entry.title, created_at=entry.created_at) for entry in dataset.items)
    times = np.round(dataset.events.time / 1e9) * 1e9 + np.arange(len(dataset.events)) * 1e-3
    events = replace(dataset.events, context=np.empty(0, np.int32), contexts=(), time=times)
    world = replace(dataset, items=bare, users={}, events=events)
    split = leave_one_out(world)
    examples = collected(world, replace(split, cases=split.cases[:FEW]))
    choice = choose_attributes(world, split.training, examples, seed=0, threads=1)
    assert (choice.features, choice.names, choice.evidence) == (None, (), {})
    assert all(mine is theirs for mine, theirs in zip(choice.examples, examples, strict=True))


@pytest.mark.parametrize("protocol", ["leave-one-out", "time-split"])
def test_what_happens_in_the_future_changes_nothing_that_is_read(protocol: Protocol) -> None:
    """Targets and later events become events on other items; of time splits, cases with no later event before them."""
    dataset = city_world("city")
    split = leave_one_out(dataset) if protocol == "leave-one-out" else time_split(dataset)
    later = np.setdiff1d(np.arange(len(dataset.events)), split.training)
    items = dataset.events.item.copy()
    items[later] = (items[later] + 1) % ITEMS  # of another brand
    changed = replace(dataset, events=replace(dataset.events, item=items))
    (spec, before), (other, after) = read(dataset, split), read(changed, split)
    assert spec == other
    clean = [bool(np.isin(case.history, split.training).all()) for case in split.cases[:FEW]]
    assert sum(clean) > 10
    pairs = zip(before, after, clean, strict=True)
    assert all(np.array_equal(one, two, equal_nan=True) for one, two, known in pairs if known)


def test_an_event_planted_in_the_future_changes_nothing_that_is_read() -> None:
    dataset = city_world("city")
    split, events = leave_one_out(dataset), dataset.events
    rows = EventRows(dataset.item_numbers)
    for row in range(len(events)):
        user, number = int(events.user[row]), int(events.item[row])
        context = events.context_of(row)
        rows.add(user, f"i{number}", pb.EVENT_TYPE_LIKE, None, float(events.time[row]), context)
    for number in range(500):
        rows.add(USERS, "i0", pb.EVENT_TYPE_PURCHASE, None, float(events.time[-1]) + 1 + number)
    planted = replace(dataset, user_ids=(*dataset.user_ids, "new"), events=rows.events())
    (spec, before), (other, after) = read(dataset, split), read(planted, split)
    assert spec == other
    assert all(np.array_equal(one, two, equal_nan=True) for one, two in zip(before, after, strict=True))


def test_other_ids_and_another_order_of_the_catalogue_change_nothing_that_is_read() -> None:
    dataset = city_world("city")
    moved, _, place = renumbered(dataset, without_words(), seed=2)
    spec = learn_spec(dataset, leave_one_out(dataset).training)
    assert spec == learn_spec(moved, leave_one_out(moved).training)
    features = AttributeFeatures(spec)
    for number in range(0, ITEMS, 7):
        assert features.items.row(dataset.items[number]) == features.items.row(moved.items[place[number]])


def test_the_service_reads_and_orders_as_the_training_did() -> None:
    dataset, choice = city_world("city"), chosen("city")
    split = leave_one_out(dataset)
    assert choice.features is not None
    weights = fit_weights(BlendTable.of(choice.examples))
    model = train_ranker(choice.examples, weights, seed=0)
    assert model is not None
    named = {kind.name.lower(): float(weight) for kind, weight in zip(SOURCES, weights, strict=True) if weight > 0}
    manifest = Manifest("b", "default", 1e9, "ranker", named, DEPTH, NAMES + choice.names)
    bundle = serving_bundle(manifest, {RANKER_FILE: model.encode(), FEATURES_FILE: choice.features.spec.to_json()})
    service = service_of(dataset, split)
    service.bundle = bundle

    def serve(judged: Judged) -> tuple[Floats, Floats]:
        scores = bundle.scorer.score(judged.taste, judged.pool, judged.opinions)
        assert scores.ranked_by is not None
        assert scores.read_names == NAMES + choice.names
        return scores.total, scores.ranked_by[:, len(NAMES) :]

    trees, equal = TreeRanker(model), []
    for example, (total, told) in zip(choice.examples, service.judge(split.cases, serve), strict=True):
        best = np.argsort(-example.blend(weights), kind="stable")[:DEPTH]
        mine = example.columns[best, len(NAMES) :].astype(np.float32)
        assert np.allclose(mine, told[best], rtol=2e-3, atol=1e-3, equal_nan=True)
        equal.append(np.array_equal(np.argsort(-ranked(example, weights, trees))[:10], np.argsort(-total)[:10]))
    assert np.mean(equal) > 0.9  # half precision moves a value across a threshold now and then


def test_items_that_nobody_acted_on_and_texts_that_are_no_words_are_not_counted() -> None:
    items = [item(0, "acme", story="x" * 900), item(1, "acme", story="x" * 900), item(2, "zeta"), item(3, "zeta")]
    words, _ = item_fields(items, np.array([3, 1, 1, 0]))
    brand = next(entry for entry in words if entry.name == "attributes.brand")
    assert brand.events == {"acme": 4.0}  # one event is too few to be counted
    assert "attributes.story" not in {entry.name for entry in words}


def test_scales_and_fillings_are_those_of_the_items_that_occur() -> None:
    prices = [0.0, 10.0, 20.0, 30.0, 4_000.0, 9e9]
    items = [item(number, "acme", price=price) for number, price in enumerate(prices)]
    _, (price,) = item_fields(items, np.array([1, 1, 1, 1, 1, 0]))
    assert price.log  # one is dear, most are not
    told = np.log1p(prices[:5])
    assert (price.mean, price.scale) == pytest.approx((told.mean(), told.std()))
    assert price.fill == pytest.approx(price.scaled(20.0), abs=1e-5)


def test_users_numbers_have_ranges_and_words_their_frequency() -> None:
    dataset = city_world("city")
    users = {}
    for number, user_id in enumerate(dataset.user_ids):
        users[user_id] = pb.User(id=user_id)
        told: dict[str, AttributeScalar] = {"age": float(number), "plan": "free" if number % 3 else "paid"}
        to_proto(told, users[user_id].attributes)
    sides = {
        known.side.name: known.side
        for known in known_sides(replace(dataset, users=users), np.arange(len(dataset.events)))
    }
    age, plan = sides["user.attributes.age"], sides["user.attributes.plan"]
    assert age.edges == pytest.approx([(USERS - 1) * quarter for quarter in (0.25, 0.5, 0.75)])
    assert age.value((USERS - 1) / 2) == pytest.approx(0.0)
    assert plan == Side("user.attributes.plan", "words", ("free", "paid"))
