"""The sequence model as a source: whose history it can read, what it asks, and what it thinks of candidates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from ranking_service.candidate import Floats, Pool, Provenance, SourceKind
from ranking_service.merge import merge
from ranking_service.query import Query
from ranking_service.search_request import search_request
from ranking_service.sequence_model import SequenceModel
from ranking_service.sources.sequence import SEQUENCE_ASK, SequenceSource
from ranking_service.sources.source import Plan
from ranking_service.taste import Anchor, Taste
from ranking_service.users.user_state import UserState
from ranking_service.vector_cache import KnownItem, TextVector
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.retrieval.v1.retrieval_service_pb2 import SearchResponse

SEMANTIC, SIZE = 5, 3
RANDOM = np.random.default_rng(0)
VECTORS = RANDOM.standard_normal((4, SIZE)).astype(np.float16)
PROJECTION = RANDOM.standard_normal((SEMANTIC, SIZE)).astype(np.float32)
TEXT = RANDOM.standard_normal(SEMANTIC).astype(np.float32)


class LatestItem:
    """Whoever chose something wants more of the latest; keeps what it was given."""

    max_length = 3

    def __init__(self) -> None:
        self.histories: list[Floats] = []

    def encode(self, histories: Sequence[Floats]) -> Floats:
        self.histories += histories
        return np.stack([history[-1] for history in histories])


def model_of(projection: Floats = PROJECTION) -> tuple[SequenceModel, LatestItem]:
    encoder = LatestItem()
    rows = {f"i{number}": number for number in range(len(VECTORS))}
    return SequenceModel(encoder, "sequence", 7, "model-1", rows, VECTORS, projection), encoder


def taste_of(model: SequenceModel | None, *latest_first: str, texts: dict[str, Floats] | None = None) -> Taste:
    likes = tuple(Anchor(item_id, 1.0, 4, 1e9) for item_id in latest_first)
    known = {i: KnownItem(vector, "1/f", 1, "", True, float("inf")) for i, vector in (texts or {}).items()}
    return Taste(Query("default", "u", now=1e9), UserState("u"), likes, known_items=known, sequence=model)


def asked(plan: Plan) -> Floats:
    (ask,) = plan.asks
    assert isinstance(ask.like, TextVector)
    return ask.like.vector


def test_one_query_in_the_space_and_the_version_of_the_model_that_scores_all() -> None:
    model, encoder = model_of()
    plan = SequenceSource(40).plan(taste_of(model, "i2", "i0"))
    assert np.array_equal(asked(plan), VECTORS[2].astype(np.float32))
    assert np.array_equal(encoder.histories[0], VECTORS[[0, 2]].astype(np.float32))  # oldest first
    request = search_request(Query("default"), {SourceKind.SEQUENCE: plan}, [])
    (query,) = request.queries
    assert (query.name, query.limit, query.space, query.space_version) == (SEQUENCE_ASK, 40, "sequence", 7)
    assert query.score_all
    assert query.vector.space_fingerprint == "model-1"


def test_an_item_from_after_the_training_is_read_by_its_text() -> None:
    model, encoder = model_of()
    SequenceSource(40).plan(taste_of(model, "new", "i1", texts={"new": TEXT, "i1": TEXT}))
    assert np.allclose(encoder.histories[0], [VECTORS[1].astype(np.float32), TEXT @ PROJECTION])


def test_only_the_latest_count_and_what_cannot_be_read_takes_no_place() -> None:
    model, encoder = model_of()
    SequenceSource(40).plan(taste_of(model, "unknown", "i3", "i2", "i1", "i0"))
    assert np.array_equal(encoder.histories[0], VECTORS[[1, 2, 3]].astype(np.float32))


@pytest.mark.parametrize(
    "texts",
    [{}, {"a": np.zeros(SEMANTIC, np.float32)}, {"a": np.ones(SEMANTIC + 1, np.float32)}],
    ids=["no text", "a text that says nothing", "a text of another encoder"],
)
def test_a_history_that_cannot_be_read_gives_no_plan(texts: dict[str, Floats]) -> None:
    model, encoder = model_of()
    assert SequenceSource(40).plan(taste_of(model, "a", "b", texts=texts)) == Plan()
    assert not encoder.histories


def test_a_model_of_ids_alone_cannot_read_new_items() -> None:
    model, _ = model_of(np.empty((0, SIZE), np.float32))
    assert SequenceSource(40).plan(taste_of(model, "new", texts={"new": TEXT})) == Plan()
    assert np.array_equal(
        asked(SequenceSource(40).plan(taste_of(model, "new", "i0", texts={"new": TEXT}))),
        VECTORS[0].astype(np.float32),
    )


def test_without_a_model_or_without_likes_there_is_no_plan() -> None:
    model, _ = model_of()
    assert SequenceSource(40).plan(taste_of(None, "i0")) == Plan()
    assert SequenceSource(40).plan(taste_of(model)) == Plan()


def pool_of(scores: list[float] | None) -> Pool:
    n = 3
    vectors = np.zeros((n, 2), np.float32)
    said = {} if scores is None else {SEQUENCE_ASK: np.array(scores, np.float32)}
    items = [Item(id=f"i{number}") for number in range(n)]
    provenance: dict[SourceKind, Provenance] = {}
    return Pool([i.id for i in items], items, vectors, vectors.astype(np.float16), {}, provenance, said)


def test_an_item_without_a_vector_is_as_good_as_the_worst() -> None:
    source, taste = SequenceSource(40), taste_of(None)
    evidence = source.evidence(taste, Plan(), pool_of([2.0, float("nan"), -1.0]))
    assert evidence is not None
    assert evidence.tolist() == [2.0, -1.0, -1.0]


@pytest.mark.parametrize("scores", [None, [float("nan")] * 3], ids=["not asked", "no item has a vector"])
def test_without_scores_there_is_no_opinion(scores: list[float] | None) -> None:
    assert SequenceSource(40).evidence(taste_of(None), Plan(), pool_of(scores)) is None


def test_what_other_sources_found_is_scored_too() -> None:
    model, _ = model_of()
    plan = SequenceSource(40).plan(taste_of(model, "i2"))
    reply = SearchResponse(items=[Item(id="i1"), Item(id="popular")])
    reply.results.add(name=SEQUENCE_ASK, item_indices=[0], scores=[3.0], all_scores=[3.0, 1.5])
    plans = {SourceKind.SEQUENCE: plan, SourceKind.POPULAR: Plan(proposals=(("popular", 1.0),))}
    pool = merge(plans, reply)
    evidence = SequenceSource(40).evidence(taste_of(model, "i2"), plan, pool)
    assert evidence is not None
    assert evidence.tolist() == [3.0, 1.5]
    assert pool.provenance[SourceKind.SEQUENCE].ranks.tolist() == [1, 0]
    assert pool.take(np.array([1], np.int32)).query_scores[SEQUENCE_ASK].tolist() == [1.5]


def test_an_event_of_this_second_changes_what_is_asked() -> None:
    model, _ = model_of()
    before = taste_of(model, "i0")
    after = replace(before, likes=(Anchor("i3", 1.0, 4, 2e9), *before.likes))
    assert not np.array_equal(asked(SequenceSource(40).plan(before)), asked(SequenceSource(40).plan(after)))
