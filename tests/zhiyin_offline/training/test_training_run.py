"""A whole training, from a record to a bundle that serves from disk."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest

from ranking_service.bundles.bundle import (
    RANKER_FILE,
    SEQUENCE_FILE,
    SEQUENCE_ITEMS_FILE,
    BundleUnusable,
    Manifest,
    read_file,
    read_manifest,
    write_bundle,
)
from ranking_service.bundles.bundle_store import BundleStore
from ranking_service.bundles.loading import serving_bundle
from ranking_service.bundles.sequence_files import SPACE
from ranking_service.candidate import SourceKind
from ranking_service.pipeline import Judged
from ranking_service.scorers.scorer import BuiltinScorer
from ranking_service.scorers.source_weights import source_weights
from service_runtime.errors import FailedPrecondition
from tests.zhiyin_offline.training.chain_world import (
    FINGERPRINT,
    START,
    chain_vectors,
    chain_world,
    short_sequence_training,
)
from zhiyin.common.v1.item_pb2 import Item
from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin_offline.evaluation.dataset import Dataset, EventRows
from zhiyin_offline.evaluation.in_process import RecordedService
from zhiyin_offline.evaluation.memory_catalog import SEMANTIC, MemoryCatalog, semantic_space
from zhiyin_offline.evaluation.protocols import leave_one_out, time_split
from zhiyin_offline.evaluation.zhiyin_method import ZhiyinMethod
from zhiyin_offline.training.asked_service import serving_spaces
from zhiyin_offline.training.train import Trained, restricted, train
from zhiyin_offline.training.training_settings import NothingToLearn, TrainingSettings

WORLD = chain_world()
VECTORS = chain_vectors(WORLD)
PLAIN = TrainingSettings(sequence=False)


def learn(dataset: Dataset = WORLD, settings: TrainingSettings = PLAIN) -> Trained:
    return train(dataset, VECTORS, FINGERPRINT, "default", settings)


@pytest.fixture(scope="module")
def plain() -> Trained:
    return learn()


def same(one: Trained, other: Trained) -> bool:
    """Everything but the id and the time."""
    manifests = [{**asdict(trained.manifest), "id": "", "created_at": 0.0} for trained in (one, other)]
    return manifests[0] == manifests[1] and one.files == other.files


def test_the_bundle_says_what_it_is_and_why(plain: Trained) -> None:
    manifest, evidence = plain.manifest, plain.manifest.evidence
    assert manifest.catalog == "default"
    assert manifest.serves == plain.choice.best.serves
    assert evidence["chosen"] in evidence["contenders"]
    assert {"builtin", "equal weights", "learned weights", "learned ranker"} <= set(evidence["contenders"])
    assert evidence["contenders"][evidence["chosen"]] == dict(manifest.metrics)
    assert evidence["cases"] == len(leave_one_out(WORLD).cases)
    assert evidence["sequence_model"] is None
    assert 0.9 < evidence["candidates_hold_target"] <= 1
    best = max(figures["ndcg@10"] for name, figures in evidence["contenders"].items() if name.endswith(" alone"))
    assert manifest.metrics["ndcg@10"] >= best
    json.dumps(asdict(manifest))  # it goes to disk as text


def test_the_same_seed_gives_the_same_bundle_and_another_id(plain: Trained) -> None:
    again = learn()
    assert same(plain, again)
    assert plain.manifest.id != again.manifest.id


def test_max_cases_are_drawn_evenly_and_by_the_seed(plain: Trained) -> None:
    few = learn(settings=replace(PLAIN, max_cases=25))
    assert len(few.examples) == few.manifest.evidence["cases"] == 25
    other = learn(settings=replace(PLAIN, max_cases=25, seed=1))
    assert not same(few, other)


@pytest.mark.parametrize("protocol", ["leave-one-out", "time-split"])
def test_what_is_held_out_for_an_evaluation_teaches_nothing(protocol: str) -> None:
    """Everything that is not in a split's training becomes other events: the bundle stays the same."""
    split = leave_one_out(WORLD) if protocol == "leave-one-out" else time_split(WORLD)
    settings = replace(PLAIN, protocol=protocol, max_cases=40)  # type: ignore[arg-type]
    events = WORLD.events
    held_out = np.setdiff1d(np.arange(len(events)), split.training)
    item = events.item.copy()
    item[held_out] = 7
    changed = replace(WORLD, events=replace(events, item=item))
    assert same(*(learn(restricted(world, split.training), settings) for world in (WORLD, changed)))


def test_too_little_to_learn_from_is_told() -> None:
    rows = EventRows(WORLD.item_numbers)
    for user in range(5):
        rows.add(user, f"i{user}", pb.EVENT_TYPE_LIKE, None, START + user)
    tiny = Dataset(WORLD.items, tuple("abcde"), {}, rows.events())
    with pytest.raises(NothingToLearn, match="three items"):
        learn(tiny)
    method = ZhiyinMethod(VECTORS, FINGERPRINT)
    method.fit(tiny, leave_one_out(tiny))  # an evaluation goes on with what serves before any training
    assert method.bundle is None


def test_a_catalogue_without_words_is_learned_from_too() -> None:
    trained = train(WORLD, np.zeros_like(VECTORS), FINGERPRINT, "default", replace(PLAIN, max_cases=40))
    assert trained.manifest.metrics["ndcg@10"] > 0
    assert "history" not in trained.manifest.weights  # without vectors nothing is like anything


def test_progress_is_told_step_by_step() -> None:
    said: list[tuple[str, int, int]] = []
    train(WORLD, VECTORS, FINGERPRINT, "default", replace(PLAIN, max_cases=20), lambda *step: said.append(step))
    assert ("candidates", 20, 20) in said
    assert ("fold 5 of 5", 0, 0) in said


# From here on with a sequence model.


@pytest.fixture(scope="module")
def with_sequence() -> tuple[Manifest, dict[str, bytes], Trained]:
    """A bundle in which a sequence model serves, and the training it is from."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        short_sequence_training(monkeypatch, steps=160)
        trained = learn(settings=TrainingSettings(seed=0))
    assert trained.sequence is not None, trained.manifest.evidence
    return replace(trained.manifest, spaces={SPACE: 1}), trained.files, trained


def test_a_sequence_model_serves_where_the_next_item_follows_from_the_last(
    with_sequence: tuple[Manifest, dict[str, bytes], Trained],
) -> None:
    manifest, files, trained = with_sequence
    assert manifest.serves in ("blend", "ranker")
    assert manifest.evidence["sequence_model"]["steps"] > 0
    assert {SEQUENCE_FILE, SEQUENCE_ITEMS_FILE} <= set(files)
    figures = manifest.evidence["contenders"]
    assert figures[manifest.evidence["chosen"]]["ndcg@10"] >= figures["sequence alone"]["ndcg@10"]
    assert trained.sequence is not None
    assert set(trained.sequence.item_ids) <= set(WORLD.item_ids)


def test_the_bundle_serves_from_disk_as_from_memory(
    with_sequence: tuple[Manifest, dict[str, bytes], Trained], tmp_path: Path
) -> None:
    manifest, files, trained = with_sequence
    write_bundle(tmp_path / "default", manifest, files)
    store = BundleStore(tmp_path, BuiltinScorer(source_weights))
    store.activate("default", manifest.id)
    loaded, split = store.serving("default"), leave_one_out(WORLD)
    assert loaded.id == manifest.id
    assert loaded.sequence is not None
    assert loaded.sequence.version == 1
    lists = []
    for bundle in (loaded, serving_bundle(manifest, files)):
        catalog = MemoryCatalog(WORLD.items, serving_spaces(VECTORS, FINGERPRINT, trained.sequence))
        service = RecordedService(WORLD, catalog, bundle=bundle)
        service.statistics.fold(split.training)
        lists.append(service.lists(split.cases[:20], 10))
    assert np.array_equal(*lists)
    targets = np.array([case.target for case in split.cases[:20]])
    assert (lists[0] == targets[:, None]).any(axis=1).mean() > 0.5


@pytest.mark.parametrize("name", [SEQUENCE_FILE, SEQUENCE_ITEMS_FILE])
@pytest.mark.parametrize("damage", ["flipped", "cut", "missing", "not in the manifest", "nonsense with its checksum"])
def test_a_damaged_sequence_model_is_refused_and_what_served_goes_on(
    with_sequence: tuple[Manifest, dict[str, bytes], Trained], tmp_path: Path, name: str, damage: str
) -> None:
    manifest, files, _ = with_sequence
    if damage == "nonsense with its checksum":
        files = {**files, name: b"written like this"}
    write_bundle(tmp_path / "default", manifest, files)
    folder = tmp_path / "default" / manifest.id
    content = bytearray((folder / name).read_bytes())
    if damage == "flipped":
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
    elif damage == "cut":
        (folder / name).write_bytes(content[: len(content) // 2])
    elif damage == "missing":
        (folder / name).unlink()
    elif damage == "not in the manifest":
        text = json.loads((folder / "manifest.json").read_text())
        del text["files"][name]
        (folder / "manifest.json").write_text(json.dumps(text))
    store = BundleStore(tmp_path, BuiltinScorer(source_weights))
    if damage == "not in the manifest" and name == SEQUENCE_FILE:
        store.activate("default", manifest.id)  # it says that it has none: it is served without
        assert store.serving("default").sequence is None
        return
    with pytest.raises(FailedPrecondition) as refused:
        store.activate("default", manifest.id)
    assert refused.value.reason == "BUNDLE_UNUSABLE"
    assert store.serving("default").id == "builtin"


def test_files_are_checked_one_by_one(
    with_sequence: tuple[Manifest, dict[str, bytes], Trained], tmp_path: Path
) -> None:
    manifest, files, _ = with_sequence
    write_bundle(tmp_path, manifest, files)
    read = read_manifest(tmp_path / manifest.id)
    assert read_file(tmp_path / manifest.id, read, SEQUENCE_FILE) == files[SEQUENCE_FILE]
    with pytest.raises(BundleUnusable):
        read_file(tmp_path / manifest.id, read, RANKER_FILE + ".other")


def test_an_item_from_after_the_training_is_found_by_its_text(
    with_sequence: tuple[Manifest, dict[str, bytes], Trained],
) -> None:
    """Its vector is the projection of its text, as a derived space makes it; the model then finds and reads it."""
    manifest, files, trained = with_sequence
    part, bundle = trained.sequence, serving_bundle(manifest, files)
    assert part is not None
    assert bundle.sequence is not None
    twin = Item()
    twin.CopyFrom(WORLD.items[30])  # its words are those of item 30; events it has none
    twin.id = "new"
    world, semantic = replace(WORLD, items=(*WORLD.items, twin)), semantic_space(VECTORS, FINGERPRINT)
    text = semantic.rows[30:31]
    spaces = {
        SEMANTIC: replace(semantic, rows=np.concatenate([semantic.rows, text])),
        SPACE: replace(
            part.space,
            rows=np.concatenate([part.space.rows, text @ part.projection]),
            known=np.full(len(world.items), True),
        ),
    }
    service = RecordedService(world, MemoryCatalog(world.items, spaces), bundle=bundle)
    service.statistics.fold(np.arange(len(world.events)))

    def place(judged: Judged) -> float:
        """Share of the candidates that the model puts behind the new item."""
        said = judged.opinions.evidence[SourceKind.SEQUENCE]
        return float(np.mean(said < said[judged.pool.ids.index("new")]))

    cases = leave_one_out(WORLD).cases
    latest = np.array([int(WORLD.events.item[case.history[-1]]) for case in cases])
    places = np.array(service.judge(cases, place))
    near = (latest >= 26) & (latest < 36)
    assert near.sum() > 5
    assert places[near].mean() > 0.7
    assert places[near].mean() > places[~near].mean() + 0.2
    # Whoever has only the new item wants what those want who have the item that it is like.
    assert bundle.sequence.user_vector(["nobody"], {}) is None
    by_text = bundle.sequence.user_vector(["new"], {"new": semantic.rows[30]})
    assert by_text is not None
    wanted = np.argsort(-(part.space.rows @ by_text))[:15]
    assert np.mean((wanted >= 26) & (wanted < 45)) > 0.5
