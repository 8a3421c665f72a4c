"""What a ranker reads of attributes and circumstances, held against figures worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import numpy as np
import pytest

from ranking_service.attribute_features.asker import Asker, asker_of
from ranking_service.attribute_features.attribute_features import AttributeFeatures
from ranking_service.attribute_features.feature_spec import FeatureSpec, Lift, NumberField, Side, WordField
from ranking_service.candidate import Floats, Pool
from ranking_service.query import Anonymous, Query
from ranking_service.taste import Anchor, Taste
from ranking_service.users.user_state import UserState
from ranking_service.vector_cache import KnownItem
from service_runtime.attributes import AttributeScalar, to_proto
from zhiyin.common.v1.item_pb2 import Item

BRAND = WordField("attributes.brand", 1, {"acme": 7.0, "zeta": 1.0})
KINDS = WordField("categories", 2, {"shoes": 3.0})
PRICE = NumberField("attributes.price", mean=100.0, scale=50.0, fill=-0.5)
CITY = Side("user.attributes.city", "words", ("rome", "oslo"))
AGE = Side("user.attributes.age", "number", mean=40.0, scale=10.0, edges=(30.0, 40.0, 50.0))
DEVICE = Side("context.device", "words", ("phone", "tv"))
LIFT = Lift("user.attributes.city", "attributes.brand", {"rome": {"acme": 1.5, "zeta": -0.5}})
SPEC = FeatureSpec((KINDS, BRAND), (PRICE,), (CITY, AGE, DEVICE), (LIFT,))
NOON = datetime(2026, 11, 30, 12, 30, tzinfo=UTC).timestamp()  # a Monday


def item(item_id: str, *categories: str, language: str = "", **attributes: AttributeScalar) -> Item:
    made = Item(id=item_id, categories=categories, language=language)
    to_proto(attributes, made.attributes)
    return made


def table(asker: Asker, liked: list[Item], *candidates: Item, spec: FeatureSpec = SPEC) -> dict[str, list[float]]:
    """Columns by name."""
    features = AttributeFeatures(spec)
    rows = features.of(asker, {i.id: features.items.row(i) for i in liked}, [features.items.row(i) for i in candidates])
    assert rows.shape == (len(candidates), len(spec.names))
    assert rows.dtype == np.float32
    return {name: rows[:, column].tolist() for column, name in enumerate(spec.names)}


def test_shares_are_of_the_weight_of_the_likes_that_have_the_word() -> None:
    liked = [item("a", "shoes", brand="acme"), item("b", "shoes", "red", brand="zeta"), item("c", "red")]
    asker = Asker(NOON, (("a", 3.0), ("b", 1.0), ("c", 4.0), ("gone", 9.0)))
    columns = table(
        asker, liked, item("x", "shoes", brand="acme"), item("y", "shoes", "red", brand="new"), item("z", "blue")
    )
    # Shoes: 4 of the weight of 8; red: 5. Of brands nothing is known of c.
    assert columns["categories.share"] == pytest.approx([0.5, (0.5 + 0.625) / 2, 0.0])
    assert columns["attributes.brand.share"] == pytest.approx([0.75, 0.0, np.nan], nan_ok=True)


def test_the_item_liked_last_counts_by_itself() -> None:
    liked = [item("a", "shoes", "red"), item("b", "blue", brand="zeta")]
    asker = Asker(NOON, (("gone", 1.0), ("a", 1.0), ("b", 3.0)))
    columns = table(asker, liked, item("x", "shoes", "blue", brand="zeta"), item("y", "red"), item("z"))
    assert columns["categories.latest"] == pytest.approx([0.5, 1.0, np.nan], nan_ok=True)
    assert np.isnan(columns["attributes.brand.latest"]).all()  # the latest has no brand


def test_without_likes_that_are_at_hand_shares_and_distances_are_unknown() -> None:
    columns = table(Asker(NOON, (("gone", 1.0),)), [], item("x", "shoes", brand="acme", price=150.0))
    assert all(
        np.isnan(columns[name][0]) for name in ("categories.share", "categories.latest", "attributes.brand.share")
    )
    assert np.isnan(columns["attributes.price.distance"][0])
    assert columns["attributes.price.value"] == [1.0]


def test_words_tell_how_much_the_training_saw_of_them() -> None:
    columns = table(Asker(NOON), [], item("x", "shoes", "red", brand="acme"), item("y", brand="new"))
    assert columns["categories.events"] == pytest.approx([np.log(4.0) / 2, np.nan], nan_ok=True)
    assert columns["attributes.brand.events"] == pytest.approx([np.log(8.0), 0.0])


def test_only_so_many_words_of_an_item_count() -> None:
    liked = [item("a", "first", "second", "third")]
    columns = table(Asker(NOON, (("a", 1.0),)), liked, item("x", "third"), item("y", "second"))
    assert columns["categories.share"] == [0.0, 1.0]


def test_numbers_are_scaled_filled_and_compared_with_what_was_liked() -> None:
    liked = [item("a", price=100.0), item("b", price=200.0), item("c")]
    asker = Asker(NOON, (("a", 3.0), ("b", 1.0), ("c", 5.0)))
    columns = table(asker, liked, item("x", price=150.0), item("y"), item("z", price=1e9))
    assert columns["attributes.price.value"] == [1.0, -0.5, 8.0]  # the filling of the training; held within bounds
    assert columns["attributes.price.given"] == [1.0, 0.0, 1.0]
    assert columns["attributes.price.distance"] == [0.5, 1.0, 7.5]  # from (3 * 0 + 1 * 2) / 4


def test_logarithms_truths_and_moments_are_numbers_too() -> None:
    logarithm = NumberField("attributes.sold", mean=1.0, scale=2.0, log=True)
    assert logarithm.scaled(np.e - 1) == pytest.approx(0.0)
    assert np.isnan(logarithm.scaled(-2.0))
    spec = FeatureSpec(
        numbers=(NumberField("attributes.new", 0.0, 1.0), NumberField("attributes.since", 20_000.0, 1.0))
    )
    day = datetime.fromtimestamp(20_003 * 86_400, UTC)
    columns = table(Asker(NOON), [], item("x", new=True, since=day), item("y", new=False), spec=spec)
    assert columns["attributes.new.value"] == [1.0, 0.0]
    assert columns["attributes.since.value"] == [3.0, 0.0]
    assert columns["attributes.since.given"] == [1.0, 0.0]


@pytest.mark.parametrize(
    ("attributes", "city", "age"),
    [({"city": "rome", "age": 60.0}, 0.0, 2.0), ({"city": "oslo"}, 1.0, np.nan), ({"city": "lima"}, np.nan, np.nan)],
    ids=["all known", "no age", "a city that no training saw"],
)
def test_users_are_told_by_the_place_of_their_word_and_the_scaled_number(
    attributes: dict[str, AttributeScalar], city: float, age: float
) -> None:
    columns = table(Asker(NOON, attributes=attributes), [], item("x"), item("y"))
    assert columns["user.attributes.city"] == pytest.approx([city] * 2, nan_ok=True)
    assert columns["user.attributes.age"] == pytest.approx([age] * 2, nan_ok=True)


def test_a_lift_is_that_of_the_users_own_value() -> None:
    candidates = item("x", brand="acme"), item("y", brand="zeta"), item("z", brand="new"), item("none")
    of_rome = table(Asker(NOON, attributes={"city": "rome"}), [], *candidates)[LIFT.name]
    assert of_rome == pytest.approx([1.5, -0.5, 0.0, np.nan], nan_ok=True)
    for attributes in ({"city": "oslo"}, {}):  # of Oslo nothing was learned
        assert np.isnan(table(Asker(NOON, attributes=attributes), [], *candidates)[LIFT.name]).all()


def test_a_number_of_a_user_has_the_lift_of_its_range() -> None:
    assert AGE.words(29.0) == ("range 0",)
    assert AGE.words(30.0) == ("range 1",)
    assert AGE.words(80.0) == ("range 3",)
    lift = Lift(AGE.name, BRAND.name, {"range 3": {"acme": 2.0}})
    spec = FeatureSpec((BRAND,), (), (AGE,), (lift,))
    assert table(Asker(NOON, attributes={"age": 80.0}), [], item("x", brand="acme"), spec=spec)[lift.name] == [2.0]


def test_circumstances_are_those_of_the_request() -> None:
    candidates = item("x", language="en-GB"), item("y", language="zh"), item("z")
    columns = table(Asker(NOON, locale="en-US", device="tv"), [], *candidates)
    assert columns["context.hour"] == [12.0] * 3
    assert columns["context.weekday"] == [0.0] * 3
    assert columns["context.device"] == [1.0] * 3
    assert columns["context.language_match"] == pytest.approx([1.0, 0.0, np.nan], nan_ok=True)
    nothing_told = table(Asker(NOON), [], *candidates)
    assert np.isnan(nothing_told["context.device"] + nothing_told["context.language_match"]).all()


def test_no_candidates_and_an_empty_spec_are_no_trouble() -> None:
    assert AttributeFeatures(SPEC).of(Asker(NOON), {}, []).shape == (0, len(SPEC.names))
    assert table(Asker(NOON), [item("a")], item("x"), spec=FeatureSpec())["context.hour"] == [12.0]


def test_a_spec_comes_back_from_a_bundle_as_it_was() -> None:
    assert FeatureSpec.from_json(SPEC.to_json()) == SPEC
    less = SPEC.keeping(["attributes.brand.share", LIFT.name])
    again = FeatureSpec.from_json(less.to_json())
    assert (again, again.names, again.key) == (less, ("attributes.brand.share", LIFT.name), less.key)
    assert less.key != SPEC.key
    for damaged in (b"", b"[]", b"{}", SPEC.to_json()[:-5], SPEC.to_json().replace(b'"width"', b'"girth"')):
        with pytest.raises(ValueError):
            FeatureSpec.from_json(damaged)


def test_what_no_column_needs_is_not_asked_for() -> None:
    assert SPEC.item_attributes == ("brand", "price")
    assert SPEC.keeping(["categories.share", "context.hour"]).item_attributes == ()
    assert SPEC.keeping([LIFT.name]).item_attributes == ("brand",)
    assert SPEC.keeping([LIFT.name]).sides == (CITY,)
    assert SPEC.keeping(["attributes.price.given"]).words == ()


def test_an_item_is_read_anew_when_it_has_a_new_revision() -> None:
    facts = AttributeFeatures(SPEC).items
    old = item("x", brand="acme")
    row = facts.row(old)
    changed = item("x", brand="zeta")
    changed.revision = 1
    assert facts.row(changed) != row
    assert facts.row(old) == row


def test_a_list_reads_the_items_that_come_with_what_is_to_be_read_and_no_others() -> None:
    features = AttributeFeatures(SPEC)
    items = [item("x", brand="acme"), item("y", brand="zeta")]
    vectors = np.zeros((2, 1), np.float32)
    pool = Pool(["x", "y"], items, vectors, vectors.astype(np.float16), {}, {})
    facts = features.items.row(item("a", brand="zeta"))
    known = KnownItem(vectors[0], "1/f", 1, "", True, float("inf"), facts, features.items.key)
    taste = Taste(
        Query("default", "u", now=NOON), UserState("u"), (Anchor("a", 1.0, 4, NOON),),
        known_items={"a": known}, attributes=features,
    )  # fmt: skip

    def share(taste: Taste) -> Floats:
        return features.of_pool(taste, pool, np.array([1, 0]))[:, SPEC.names.index("attributes.brand.share")]

    assert share(taste).tolist() == [1.0, 0.0]
    by_another = replace(known, facts_key="another spec")
    assert np.isnan(share(replace(taste, known_items={"a": by_another}))).all()
    assert np.isnan(features.of_pool(replace(taste, attributes=None), pool, np.array([0, 1]))).all()


def test_somebody_described_in_the_request_has_the_attributes_that_it_says() -> None:
    anonymous = Query("default", anonymous=Anonymous(attributes={"city": "oslo"}), now=NOON, device="tv", place="home")
    asker = asker_of(Taste(anonymous, UserState("", attributes={"city": "rome"}), (Anchor("a", 2.0, 4, NOON),)))
    assert asker == Asker(NOON, (("a", 2.0),), {"city": "oslo"}, "", "tv", "home")
    known = Query("default", "u", now=NOON, locale="zh-CN")
    assert asker_of(Taste(known, UserState("u", attributes={"city": "rome"}))).side("user.attributes.city") == "rome"
    assert asker_of(Taste(known, UserState("u"))).side("context.language") == "zh"
