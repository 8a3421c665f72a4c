"""The pure parts of rules: near-duplicates, caps, boosts, what is asked of retrieval, and rows that a list keeps."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from ranking_service.candidate import Pool, Provenance, SourceKind, best_first
from ranking_service.page import read_page
from ranking_service.page_token import PageToken, id_digest, read_page_token, write_page_token
from ranking_service.query import Query
from ranking_service.rules.boosts import boosted
from ranking_service.rules.caps import shown_enough
from ranking_service.rules.collapse import alike, duplicates
from ranking_service.rules.questions import ask_for_rules, forbidden, label_of, refused_rules
from ranking_service.rules.rule import Rule, RuleAction
from ranking_service.rules.served_items import Served
from ranking_service.scorers.learned import LearnedScorer
from ranking_service.scorers.scorer import Opinions
from ranking_service.scorers.weighted_sum import Scores
from ranking_service.selectors.slate import Slate, Versions, make_slate
from ranking_service.taste import Anchor, Taste
from ranking_service.users.impressions import MAX_IN_ALL, with_impressions
from ranking_service.users.user_state import UserState
from service_runtime.signed_token import TokenSigner
from zhiyin.common.v1.filter_pb2 import FieldIn, Filter, FilterList
from zhiyin.common.v1.item_pb2 import AttributeValue, Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2
from zhiyin.retrieval.v1.retrieval_service_pb2 import SearchRequest


def where(*values: str) -> Filter:
    named = [AttributeValue(string_value=value) for value in values]
    return Filter(field_in=FieldIn(field="categories", values=named))


def taste_with(*rules: Rule, **fields) -> Taste:
    return Taste(Query("default", rules=rules, now=1_000.0), UserState("u", **fields))


# ---- near-duplicates


@given(
    groups=st.lists(st.integers(0, 4), min_size=1, max_size=20),
    matches=st.lists(st.booleans(), min_size=20, max_size=20),
    first=st.sets(st.integers(0, 19), max_size=3),
    seed=st.integers(0, 99),
)
@settings(max_examples=80, deadline=None)
def test_of_each_kind_the_best_stays_unless_something_else_has_to(
    groups: list[int], matches: list[bool], first: set[int], seed: int
) -> None:
    n = len(groups)
    vectors = np.eye(5, dtype=np.float32)[groups]
    order = np.random.default_rng(seed).permutation(n).astype(np.int32)
    first = {row for row in first if row < n}
    dropped = duplicates(order, vectors, [(np.array(matches[:n]), 0.9)], sorted(first))
    for row in range(n):
        same = [r for r in range(n) if groups[r] == groups[row] and matches[r]] if matches[row] else [row]
        best = [r for r in order.tolist() if r in same]
        stays = row in first or (not first & set(same) and best[0] == row)
        assert dropped[row] == (not stays)


def test_equal_items_are_alike_at_one_and_an_item_without_a_vector_is_like_nothing() -> None:
    rows = np.random.default_rng(1).standard_normal((3, 384)).astype(np.float16).astype(np.float32)
    assert alike(rows, rows, 1.0).tolist() == np.eye(3, dtype=bool).tolist()
    nothing = np.zeros((1, 384), np.float32)
    assert not alike(nothing, nothing, 0.5).any()


# ---- caps


impressions = st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 2_000)), max_size=40)


@given(impressions, st.integers(1, 5), st.floats(60, 1_000), st.floats(0, 2_000))
@settings(max_examples=80, deadline=None)
def test_who_was_shown_an_item_often_enough(
    events: list[tuple[str, float]], most: int, period: float, now: float
) -> None:
    shown: dict[str, tuple[float, ...]] = {}
    for event in events:
        shown = dict(with_impressions(shown, [event]))
    reached = shown_enough(shown, most, period, now)
    counted = {i: sum(item == i and now - period < time <= now for item, time in events) for i in "abc"}
    assert set(reached) == {i for i, count in counted.items() if count >= most}


def test_impressions_are_bounded_and_the_latest_are_kept() -> None:
    shown = with_impressions({}, [("a", float(time)) for time in range(300)])
    assert shown["a"] == tuple(float(time) for time in range(299, 199, -1))
    many = with_impressions({}, [(f"item-{n}", float(n)) for n in range(MAX_IN_ALL + 50)])
    assert sum(map(len, many.values())) == MAX_IN_ALL
    assert "item-49" not in many
    assert "item-50" in many
    later = with_impressions(shown, [("b", 31 * 86_400.0)])
    assert set(later) == {"b"}


# ---- boosts


def pool_of(n: int, **fields) -> Pool:
    ids = [f"item-{row}" for row in range(n)]
    vectors = np.eye(n, dtype=np.float32)
    return Pool(ids, [Item(id=i) for i in ids], vectors, vectors.astype(np.float16), {}, **{"provenance": {}, **fields})


@given(st.lists(st.floats(-100, 100, width=32), min_size=2, max_size=20), st.floats(0.01, 10), st.floats(0.1, 100))
@settings(max_examples=100, deadline=None)
def test_a_boost_means_the_same_on_every_scale(totals: list[float], strength: float, scale: float) -> None:
    total = np.array(totals, np.float32)
    assume(total.std() > 1e-3)
    condition = where("x")
    matches = np.arange(len(total)) % 2 == 0
    pool = pool_of(len(total), labels={label_of(condition): matches})
    rule = Rule("r", RuleAction.BOOST, condition, strength=strength)
    zeros = np.zeros(len(total), np.float32)
    one = boosted(Scores(total, {}, zeros), pool, (rule,))
    other = boosted(Scores(total * np.float32(scale), {}, zeros), pool, (rule,))
    assert one.total[matches] == pytest.approx(total[matches] + strength * total.std(), rel=1e-3, abs=1e-3)
    assert (one.total[~matches] == total[~matches]).all()
    assert other.total == pytest.approx(one.total * scale, rel=1e-3, abs=1e-2 * scale)
    back = boosted(one, pool, (replace(rule, action=RuleAction.BURY, strength=strength),))
    assert back.total[~matches] == pytest.approx(total[~matches])
    assert boosted(Scores(total, {}, zeros), pool, ()).total is total


class Reversed:
    """A learned ranker that thinks the opposite."""

    feature_count = 0

    def score(self, rows: np.ndarray) -> np.ndarray:
        return np.arange(len(rows), dtype=np.float32) * 1_000.0


def test_a_boost_works_on_what_a_learned_ranker_ordered() -> None:
    condition = where("x")
    matches = np.arange(40) == 5
    pool = pool_of(40, labels={label_of(condition): matches})
    taste = replace(taste_with(), likes=(Anchor("liked", 1.0, 0, 0.0),))
    evidence = {SourceKind.HISTORY: np.linspace(1, 0, 40).astype(np.float32)}
    opinions = Opinions(evidence, {SourceKind.HISTORY: 0.02}, np.zeros(40, np.float32))
    scorer = LearnedScorer({SourceKind.HISTORY: 1.0}, Reversed(), 20)  # type: ignore[arg-type]
    plain = scorer.score(taste, pool, opinions)
    before = best_first(plain.total, pool.ids).tolist().index(5)
    places = []
    for strength in (0.2, 1.0, 10.0):
        rule = Rule("r", RuleAction.BOOST, condition, strength=strength)
        places.append(best_first(boosted(plain, pool, (rule,)).total, pool.ids).tolist().index(5))
    assert before >= places[0] >= places[1] >= places[2] == 0
    assert places[0] > 0
    bury = Rule("r", RuleAction.BURY, condition, strength=10.0)
    assert best_first(boosted(plain, pool, (bury,)).total, pool.ids).tolist()[-1] == 5


# ---- what is asked


def parts_of(condition: Filter) -> list[Filter]:
    kind = condition.WhichOneof("condition")
    if kind == "negated":
        return [condition.negated]
    return list(getattr(condition, kind).filters) if kind in ("all_of", "any_of") else []


def rows_of(condition: Filter) -> int:
    return 1 + sum(map(rows_of, parts_of(condition)))


def depth_of(condition: Filter) -> int:
    return 1 + max(map(depth_of, parts_of(condition)), default=0)


@given(st.lists(st.tuples(st.integers(1, 8), st.integers(1, 20)), max_size=12), st.integers(1, 8), st.integers(1, 55))
@settings(max_examples=100, deadline=None)
def test_whatever_is_blocked_the_request_keeps_within_retrievals_limits(
    blocks: list[tuple[int, int]], own_depth: int, own_width: int
) -> None:
    def nested(depth: int, width: int, name: str) -> Filter:
        made = (
            Filter(any_of=FilterList(filters=[where(f"{name}{n}") for n in range(width)])) if width > 1 else where(name)
        )
        while depth_of(made) < depth:
            made = Filter(all_of=FilterList(filters=[made]))
        return made

    rules = [Rule(f"r{n}", RuleAction.BLOCK, nested(*size, f"b{n}-")) for n, size in enumerate(blocks)]
    own = nested(own_depth, own_width, "own")
    request = SearchRequest(filter=own)
    taste = taste_with(*rules)
    ask_for_rules(request, taste, 200)
    assert rows_of(request.filter) <= 64
    assert depth_of(request.filter) <= max(8, depth_of(own))
    negated = [
        label_of(part.negated) for part in request.filter.all_of.filters if part.WhichOneof("condition") == "negated"
    ]
    asked = [label.name for label in request.labels]
    # Every block is in the filter or, where that is full, a label: then ranking drops what matches.
    assert {label_of(condition) for condition in forbidden(taste)} == {*negated, *asked}


def test_rules_with_the_same_filter_share_a_label_and_bring_in_what_the_neediest_wants() -> None:
    rules = [
        Rule("boost", RuleAction.BOOST, where("a")),
        Rule("pin", RuleAction.PIN, where("a"), position=1),
        Rule("floor", RuleAction.EXPOSURE_FLOOR, where("a"), min_share=0.2),
        Rule("quota", RuleAction.QUOTA, Filter(), max_places=1, per_field="provider"),
    ]
    request = SearchRequest()
    request.queries.add(name="query", limit=100)
    assert ask_for_rules(request, taste_with(*rules), 200) == 0
    assert [(label.name, label.add) for label in request.labels] == [(label_of(where("a")), 40)]
    assert [query.name for query in request.queries] == ["query", "rule/2/query"]
    assert request.queries[1].filter == where("a")
    assert list(request.read_mask.paths) == ["attributes"]


def test_a_refused_filter_names_its_rule() -> None:
    rules = [
        Rule("block", RuleAction.BLOCK, where("a")),
        Rule("boost", RuleAction.BOOST, where("b")),
        Rule("cap", RuleAction.FREQUENCY_CAP, where("c"), max_impressions=1),
    ]
    taste = taste_with(*rules, shown={"x": (999.0,)})
    request = SearchRequest(filter=where("own"))
    ask_for_rules(request, taste, 200)
    for details, refused in (
        ("filter.all_of.filters[0].field_in: own", set()),
        ("filter.all_of.filters[1].negated.field_in: no", {"block"}),
        ("filter.all_of.filters[2].negated.all_of.filters[0]: no; labels[0].filter: no", {"cap", "boost"}),
        ("queries[0].filter.all_of.filters[1]: no", set()),
    ):
        assert refused_rules(request, taste, f"filter: was refused by the catalogue: {details}") == refused


# ---- rows and pages


def test_ids_in_a_page_token_keep_it_below_the_bound() -> None:
    signer, request = TokenSigner(b"0123456789abcdef"), pb2.RecommendRequest(catalog="default")
    served = tuple(id_digest(str(n)) for n in range(200))
    for ids in ((), ("甲", "b"), tuple(np.random.default_rng(1).bytes(48).hex() for _ in range(200))):
        token = write_page_token(signer, request, PageToken("list", 1, 2.0, 200, served, ids))
        assert len(token) < 16_384
        request.page_token = token
        read = read_page_token(signer, request)
        assert read.served == served
        assert read.collapsing == ids[len(ids) - len(read.collapsing) :]
        assert len(ids) < 10 or len(read.collapsing) > 60
        request.page_token = ""


@st.composite
def ruled_pools(draw) -> tuple[Taste, Pool, Scores]:
    n = draw(st.integers(2, 25))
    random = np.random.default_rng(draw(st.integers(0, 10_000)))
    filters = [where(str(k)) for k in range(3)]
    flags = {label_of(condition): random.random(n) < draw(st.sampled_from([0.1, 0.3, 0.8])) for condition in filters}
    some = st.sampled_from(filters)
    rules = [
        Rule(f"pin{k}", RuleAction.PIN, draw(some), position=draw(st.integers(1, 12)))
        for k in range(draw(st.integers(0, 3)))
    ]
    if draw(st.booleans()):
        rules.append(
            Rule("collapse", RuleAction.COLLAPSE, draw(st.sampled_from([Filter(), filters[0]])), similarity=0.9)
        )
    if draw(st.booleans()):
        rules.append(Rule("floor", RuleAction.EXPOSURE_FLOOR, draw(some), min_share=draw(st.sampled_from([0.2, 0.5]))))
    if draw(st.booleans()):
        rules.append(Rule("quota", RuleAction.QUOTA, Filter(), max_places=1, window=3, per_field="categories"))
    vectors = np.eye(8, dtype=np.float32)[random.integers(0, 8, n)]
    items = [Item(id=f"item-{row}", categories=[str(random.integers(0, 3))]) for row in range(n)]
    ranks = (random.random(n) < 0.8).astype(np.int32)
    by_rule = np.where(ranks > 0, 0, 1).astype(np.int32)
    provenance = {
        SourceKind.QUERY: Provenance(ranks, np.zeros(n)),
        SourceKind.RULE: Provenance(by_rule, np.zeros(n)),
    }
    pool = Pool([i.id for i in items], items, vectors, vectors.astype(np.float16), {}, provenance, {}, flags)
    query = Query("default", rules=tuple(rules), diversity=draw(st.sampled_from([0.0, 0.3, 1.0])))
    scores = Scores(random.standard_normal(n).astype(np.float32), {}, np.zeros(n, np.float32))
    return Taste(query, UserState("u")), pool, scores


def slate_of(taste: Taste, pool: Pool, scores: Scores, served: Served) -> Slate:
    return make_slate("list", taste, pool, scores, 15, 20, Versions(), served)


@given(ruled_pools())
@settings(max_examples=120, deadline=None)
def test_a_list_made_anew_goes_on_as_the_kept_one_and_keeps_the_order_of_precedence(
    case: tuple[Taste, Pool, Scores],
) -> None:
    taste, pool, scores = case
    assume(taste.query.rules)
    slate = slate_of(taste, pool, scores, Served())
    whole = [slate.items[place.row].id for place in slate.places()]
    assert len(whole) == len(set(whole))
    pins = [place.row for place in slate.places() if place.pinned]
    # Near-duplicates: only pinned items may stand beside one.
    for rule in taste.query.rules:
        if rule.action is RuleAction.COLLAPSE:
            about = slate.collapsing
            rows = [place.row for place in slate.places() if place.row in about and place.row not in pins]
            vectors = slate.vectors.astype(np.float32)
            for row in rows:
                others = [r for r in (*rows, *(p for p in pins if p in about)) if r != row]
                assert all(vectors[row] @ vectors[other] < 0.9 for other in others)
    # What only a rule brought in stands only where a pin or a floor put it.
    floors = slate.rules.floors if slate.rules is not None else []
    for place in slate.places():
        if not slate.provenance[SourceKind.QUERY].ranks[place.row]:
            assert place.pinned or any(floor.matches[place.row] for floor in floors)
    for k in range(0, len(whole), 3):
        served = whole[:k]
        vectors = (
            np.stack([pool.vectors[pool.ids.index(i)] for i in served]) if served else np.zeros((0, 8), np.float32)
        )
        labels = {
            name: np.array([flags[pool.ids.index(i)] for i in served], bool) for name, flags in pool.labels.items()
        }
        digests = tuple(id_digest(i) for i in served)
        anew = slate_of(taste, pool, scores, Served(digests, served, vectors, labels))
        for made, read in ((slate, k), (anew, 0)):
            page = read_page(made, 50, read, digests)
            assert [made.items[place.row].id for place in page.places] == whole[k:]


@given(ruled_pools(), st.data())
@settings(max_examples=80, deadline=None)
def test_a_list_made_anew_over_other_candidates_never_repeats_and_never_collapses_wrongly(
    case: tuple[Taste, Pool, Scores], data: st.DataObject
) -> None:
    taste, pool, scores = case
    slate = slate_of(taste, pool, scores, Served())
    served = [slate.items[place.row].id for place in islice(slate.places(), 5)]
    # Meanwhile some candidates went, and the scores of the others changed.
    left = [row for row in range(len(pool)) if data.draw(st.booleans())]
    assume(left)
    changed = pool.take(np.array(left, np.int32))
    random = np.random.default_rng(data.draw(st.integers(0, 999)))
    other = Scores(random.standard_normal(len(left)).astype(np.float32), {}, np.zeros(len(left), np.float32))
    known = [pool.ids.index(i) for i in served]
    labels = {name: flags[known] for name, flags in pool.labels.items()}
    digests = tuple(id_digest(i) for i in served)
    anew = slate_of(taste, changed, other, Served(digests, served, pool.vectors[known], labels))
    page = read_page(anew, 50, 0, digests)
    rest = [anew.items[place.row].id for place in page.places]
    assert not set(served) & set(rest)
    assert page.first_rank == len(served) + 1
    pinned = {anew.items[place.row].id for place in page.places if place.pinned}
    for rule in taste.query.rules:
        if rule.action is RuleAction.COLLAPSE:
            about = {
                i
                for row, i in enumerate(pool.ids)
                if rule.filter == Filter() or pool.labels[label_of(rule.filter)][row]
            }
            shown = [i for i in (*served, *rest) if i in about]
            for place, item_id in enumerate(shown):
                if item_id in rest and item_id not in pinned:
                    vector = pool.vectors[pool.ids.index(item_id)]
                    before = [i for i in shown[:place] if i != item_id]
                    assert all(vector @ pool.vectors[pool.ids.index(i)] < 0.9 for i in before)
