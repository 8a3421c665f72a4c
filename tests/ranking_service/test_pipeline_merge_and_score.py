"""The pure steps between retrieval's answer and the list: merge, filters, scores, slots, pages."""

from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from ranking_service.candidate import SourceKind, best_first
from ranking_service.filters.filters import in_order_of_weight
from ranking_service.merge import merge
from ranking_service.page import read_page
from ranking_service.pipeline import keep_allowed
from ranking_service.query import Query
from ranking_service.scorers.weighted_sum import squash, weighted_sum, z_scores
from ranking_service.selectors.exploration_slots import fill_places
from ranking_service.selectors.slate import Versions, make_slate
from ranking_service.sources.catalog import take_turns
from ranking_service.sources.source import Ask, Plan
from ranking_service.taste import ScoutedItem, Taste
from ranking_service.users.user_state import UserState
from ranking_service.vector_cache import TextVector
from zhiyin.common.v1.embedding_pb2 import VECTOR_DTYPE_FLOAT16, EmbeddingMatrix
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2
from zhiyin.retrieval.v1.retrieval_service_pb2 import SearchResponse

ITEM_IDS = [f"item{n}" for n in range(30)]
id_lists = st.lists(st.sampled_from(ITEM_IDS), unique=True, max_size=20)


def answer(hits: dict[str, list[str]], hydrated: list[str], dimensions: int = 4) -> SearchResponse:
    reply = SearchResponse(sequence=3, space_versions={"semantic": 1})
    rows: dict[str, int] = {}
    for name, found in hits.items():
        places = [rows.setdefault(item_id, len(rows)) for item_id in found]
        reply.results.add(name=name, item_indices=places, scores=[1 - 0.01 * n for n in range(len(places))])
    for item_id in hydrated:
        rows.setdefault(item_id, len(rows))
    reply.items.extend(Item(id=item_id) for item_id in rows)
    random = np.random.default_rng(1)
    for field, n in (("item_vectors", len(rows)), ("query_vectors", len(hits))):
        vectors = random.standard_normal((n, dimensions))
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        matrix = EmbeddingMatrix(
            data=vectors.astype("<f2").tobytes(), dtype=VECTOR_DTYPE_FLOAT16, rows=n, dimensions=dimensions
        )
        getattr(reply, field).CopyFrom(matrix)
    return reply


def ask(name: str) -> Ask:
    return Ask(name, TextVector(np.ones(4, np.float32), "f"), 20)


@given(query=id_lists, first=id_lists, second=id_lists, popular=id_lists)
@settings(max_examples=100, deadline=None)
def test_no_candidate_is_lost_and_none_is_there_twice(
    query: list[str], first: list[str], second: list[str], popular: list[str]
) -> None:
    plans = {
        SourceKind.QUERY: Plan(asks=(ask("query"),)),
        SourceKind.HISTORY: Plan(asks=(ask("history.0"), ask("history.1"))),
        SourceKind.POPULAR: Plan(proposals=tuple((item_id, 1.0) for item_id in popular)),
    }
    pool = merge(plans, answer({"query": query, "history.0": first, "history.1": second}, popular))
    assert Counter(pool.ids) == Counter(dict.fromkeys({*query, *first, *second, *popular}, 1))
    for kind, proposed in (
        (SourceKind.QUERY, set(query)),
        (SourceKind.HISTORY, {*first, *second}),
        (SourceKind.POPULAR, set(popular)),
    ):
        ranks = pool.provenance[kind].ranks
        assert {item_id for item_id, rank in zip(pool.ids, ranks, strict=True) if rank} == proposed
        assert sorted(rank for rank in ranks.tolist() if rank) == list(range(1, len(proposed) + 1))


def test_a_proposal_that_retrieval_dropped_is_no_candidate() -> None:
    plans = {SourceKind.POPULAR: Plan(proposals=(("gone", 2.0), ("here", 1.0)))}
    pool = merge(plans, answer({}, ["here"]))
    assert pool.ids == ["here"]
    assert pool.provenance[SourceKind.POPULAR].ranks.tolist() == [1]


@given(
    found=id_lists,
    hidden=st.frozensets(st.sampled_from(ITEM_IDS)),
    seen=st.frozensets(st.sampled_from(ITEM_IDS)),
    excluded=st.frozensets(st.sampled_from(ITEM_IDS)),
    include_seen=st.sampled_from([None, True, False]),
)
@settings(max_examples=80, deadline=None)
def test_what_must_not_be_shown_never_gets_past_the_filters(
    found: list[str],
    hidden: frozenset[str],
    seen: frozenset[str],
    excluded: frozenset[str],
    include_seen: bool | None,
) -> None:
    query = Query("default", "u", excluded=excluded, include_seen=include_seen)
    taste = Taste(query, UserState("u", hidden=hidden, seen=seen))
    pool = merge({SourceKind.QUERY: Plan(asks=(ask("query"),))}, answer({"query": found}, []))
    kept = set(keep_allowed(pool, taste).ids)
    forbidden = hidden | excluded | (frozenset() if include_seen else seen)
    assert kept == set(found) - forbidden


def test_dropped_ids_reach_retrieval_hidden_first_and_latest_first() -> None:
    order = list(in_order_of_weight([{"h2", "h1"}, {"e"}, {"s1", "s2", "s3", "h1"}], latest=["s3", "h2"]))
    assert order == ["h2", "h1", "e", "s3", "s1", "s2"]


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=50))
def test_scores_are_finite_and_in_the_order_of_the_evidence(values: list[float]) -> None:
    evidence = np.array(values, dtype=np.float32)
    scores = squash(z_scores(evidence, 1e-3))
    assert np.isfinite(scores).all()
    order = np.argsort(evidence, kind="stable")
    assert (np.diff(scores[order]) >= -1e-6).all()


def test_the_best_of_a_sparse_source_stays_the_best_without_carrying_everything() -> None:
    evidence = np.zeros(1000, dtype=np.float32)
    evidence[:2] = 1, 2
    scores = squash(z_scores(evidence, 1e-3))
    assert 2 < scores[0] < scores[1] < 6


def test_a_source_hardly_speaks_against_an_item() -> None:
    scores = squash(np.array([-2.0, -1.0, 0.0, 1.0], dtype=np.float32))
    assert -0.3 < scores[0] < scores[1] < 0 == scores[2]
    assert scores[3] == 1


def test_differences_below_the_resolution_decide_little() -> None:
    scores = z_scores(np.array([0.5, 0.5 + 1e-7, 0.5 - 1e-7], dtype=np.float32), 0.02)
    assert np.abs(scores).max() < 1e-4


def test_contributions_add_up_to_the_score() -> None:
    pool = merge({SourceKind.QUERY: Plan(asks=(ask("query"),))}, answer({"query": ITEM_IDS[:10]}, []))
    evidence = {SourceKind.QUERY: pool.similarity("query"), SourceKind.PROFILE: np.arange(10, dtype=np.float32)}
    nudge = np.linspace(0, 1, 10, dtype=np.float32)
    scores = weighted_sum(
        pool, evidence, dict.fromkeys(evidence, 0.01), {SourceKind.QUERY: 1.0, SourceKind.PROFILE: 0.5}, nudge
    )
    assert np.allclose(sum(scores.by_source.values()) + nudge, scores.total, atol=1e-5)


def test_ties_are_not_in_the_order_of_ids() -> None:
    many = [f"{n:05d}" for n in range(500)]
    order = best_first(np.zeros(500, np.float32), many)
    assert sorted(order.tolist()) == list(range(500))
    assert abs(np.corrcoef(order, np.arange(500))[0, 1]) < 0.15


@given(
    n=st.integers(0, 30),
    drawn=st.integers(0, 15),
    share=st.floats(0, 1),
    overlap=st.integers(0, 10),
)
def test_exploration_gets_its_share_and_nothing_comes_twice(n: int, drawn: int, share: float, overlap: int) -> None:
    explored = list(range(max(n - overlap, 0), max(n - overlap, 0) + drawn))
    places = list(fill_places(iter(range(n)), explored, [0.5] * drawn, share))
    rows = [place.row for place in places]
    assert len(rows) == len(set(rows))
    assert set(range(n)) <= set(rows)
    slots = [place for place in places if place.explored]
    assert len(slots) <= share * len(places) + 1e-6
    assert all(0 < place.propensity <= 0.5 for place in slots)
    assert all(place.propensity == 1 for place in places if not place.explored)


def test_the_propensity_is_the_chance_among_those_that_wait() -> None:
    places = list(itertools.islice(fill_places(iter(range(10)), [20, 21, 22, 23], [0.25] * 4, 0.5), 6))
    assert [place.row for place in places] == [0, 20, 1, 21, 2, 22]
    assert [place.propensity for place in places if place.explored] == [0.25 / 4, 0.25 / 3, 0.25 / 2]


def slate_of(n: int, diversity: float = 0.3, max_length: int = 25, method=None):
    hits = [f"s{number}" for number in range(n)]
    pool = merge({SourceKind.QUERY: Plan(asks=(ask("query"),))}, answer({"query": hits}, []))
    evidence = {SourceKind.QUERY: np.linspace(1, 0, n).astype(np.float32)}
    scores = weighted_sum(pool, evidence, {SourceKind.QUERY: 0.01}, {SourceKind.QUERY: 1.0}, np.zeros(n, np.float32))
    taste = Taste(Query("default", diversity=diversity), UserState(""))
    return make_slate("list", taste, pool, scores, 200, max_length, Versions())


@given(n=st.integers(1, 40), sizes=st.lists(st.integers(1, 9), min_size=1, max_size=12), diversity=st.floats(0, 1))
@settings(max_examples=80, deadline=None)
def test_pages_are_the_list_cut_into_pieces(n: int, sizes: list[int], diversity: float) -> None:
    slate = slate_of(n, diversity)
    whole = [place.row for place in slate.places()]
    assert len(whole) == min(n, 25)
    read: list[int] = []
    places_read, served, more = 0, (), True
    for size in sizes:
        if not more:
            break
        page = read_page(slate, size, places_read, served)
        assert page.first_rank == len(read) + 1
        read += [place.row for place in page.places]
        places_read, served, more = page.places_read, page.served, page.has_more
        assert more == (len(read) < len(whole))
    assert read == whole[: len(read)]


@given(n=st.integers(5, 40), size=st.integers(1, 10), seed=st.integers(0, 99))
@settings(max_examples=40, deadline=None)
def test_a_list_made_anew_serves_nothing_again_and_keeps_counting(n: int, size: int, seed: int) -> None:
    first = read_page(slate_of(n), size)
    other = slate_of(n, diversity=(seed % 10) / 10)
    page = read_page(other, size, 0, first.served)
    served = {slate_of(n).items[place.row].id for place in first.places}
    assert not served & {other.items[place.row].id for place in page.places}
    assert page.first_rank == len(first.places) + 1
    assert len(page.places) == min(size, min(n, 25) - len(first.places))


def test_what_was_hidden_between_two_pages_is_skipped() -> None:
    slate = slate_of(20, diversity=0)
    first = read_page(slate, 5)
    page = read_page(slate, 5, first.places_read, first.served, [{"s5", "s7"}])
    assert [slate.items[place.row].id for place in page.places] == ["s6", "s8", "s9", "s10", "s11"]
    assert page.first_rank == 6


def test_categories_take_turns_best_prior_first() -> None:
    items = [
        ScoutedItem("a1", "a", 0, 0.9, 1),
        ScoutedItem("a2", "a", 0, 0.8, 2),
        ScoutedItem("b1", "b", 0, 0.2, 3),
        ScoutedItem("c1", "c", 0, 0.5, 4),
    ]
    assert [entry.id for entry in take_turns(items)] == ["a1", "c1", "b1", "a2"]


def test_source_numbers_are_those_of_the_contract() -> None:
    for kind in SourceKind:
        assert pb2.SourceKind.Value(f"SOURCE_KIND_{kind.name}") == kind.value
