"""What serving gets: a small graph that reads item vectors, and numbers for items."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="the extra `export` (PyTorch) is not installed")

from ranking_service.sequence_encoder import SequenceEncoder  # noqa: E402
from zhiyin_offline.training.sequence.export import (  # noqa: E402
    GRAPH_FILE,
    ITEMS_FILE,
    ExportDiffers,
    export_sequence_model,
    item_side,
)
from zhiyin_offline.training.sequence.item_side import ItemSide  # noqa: E402
from zhiyin_offline.training.sequence.settings import SequenceSettings  # noqa: E402
from zhiyin_offline.training.sequence.training import TrainedSequenceModel, train_sequence_model  # noqa: E402
from zhiyin_offline.training.sequence.validation import ValidationCases  # noqa: E402

if TYPE_CHECKING:
    from conftest import World


@pytest.fixture(scope="module")
def trained(world: World) -> TrainedSequenceModel:
    cases = ValidationCases([s[:-1] for s in world.sequences], np.array([s[-1] for s in world.sequences], np.int32))
    settings = SequenceSettings(max_steps=3, evaluate_every=3)
    return train_sequence_model(
        [s[:-1] for s in world.sequences], cases, world.text, len(world.text), settings=settings
    )


@pytest.fixture(scope="module")
def folder(trained: TrainedSequenceModel, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sequence")
    export_sequence_model(trained, folder)
    return folder


def test_user_vectors_are_those_of_pytorch_in_one_batch_and_alone(folder: Path, trained: TrainedSequenceModel) -> None:
    encoder = SequenceEncoder((folder / GRAPH_FILE).read_bytes())
    generator = np.random.default_rng(1)
    lengths = [0, 1, 2, 49, 50, 51, 80]
    histories = [trained.item_vectors[generator.integers(0, len(trained.item_vectors), length)] for length in lengths]
    users = encoder.encode(histories)
    assert (users[0] == 0).all()
    with torch.inference_mode():
        for history, user in zip(histories[1:], users[1:], strict=True):
            expected = trained.model.user(torch.from_numpy(history[-50:])[None])[0, -1].numpy()
            np.testing.assert_allclose(user, expected, atol=1e-4)
            np.testing.assert_allclose(encoder.encode([history])[0], user, atol=1e-5)
    assert (folder / GRAPH_FILE).stat().st_size < 1_500_000


def test_nobody_has_a_vector_where_nobody_has_a_history(folder: Path) -> None:
    encoder = SequenceEncoder((folder / GRAPH_FILE).read_bytes())
    assert encoder.encode([]).shape == (0, 128)
    assert (encoder.encode([np.empty((0, 128), np.float32)]) == 0).all()


def test_item_side_holds_trained_items_and_makes_new_ones(
    folder: Path, trained: TrainedSequenceModel, world: World
) -> None:
    side = ItemSide.load(folder / ITEMS_FILE)
    np.testing.assert_array_equal(side.item_vectors, trained.item_vectors)
    made = side.of_text(world.text)
    np.testing.assert_allclose(side.item_vectors[world.cold], made[world.cold], atol=1e-6)
    assert np.abs(side.item_vectors[trained.trained] - made[trained.trained]).max() > 1e-3  # the id part


def test_new_items_may_be_brought_forward(trained: TrainedSequenceModel, world: World) -> None:
    side = item_side(trained, new_item_scale=1.25)
    np.testing.assert_allclose(side.item_vectors[world.cold], 1.25 * trained.item_vectors[world.cold], rtol=1e-5)
    np.testing.assert_array_equal(side.item_vectors[trained.trained], trained.item_vectors[trained.trained])
    np.testing.assert_allclose(side.of_text(world.text)[world.cold], side.item_vectors[world.cold], atol=1e-6)


def test_a_graph_that_computes_something_else_is_refused(
    trained: TrainedSequenceModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("zhiyin_offline.training.sequence.export._MASKED", -1.0)  # the future shows
    with pytest.raises(ExportDiffers):
        export_sequence_model(trained, tmp_path)


def test_serving_needs_no_pytorch(folder: Path) -> None:
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from pathlib import Path\n"
        "from ranking_service.sequence_encoder import SequenceEncoder\n"
        "from zhiyin_offline.training.sequence.item_side import ItemSide\n"
        f"side = ItemSide.load(Path({str(folder / ITEMS_FILE)!r}))\n"
        f"encoder = SequenceEncoder(Path({str(folder / GRAPH_FILE)!r}).read_bytes())\n"
        "print((encoder.encode([side.item_vectors[:5]]) @ side.item_vectors.T).shape)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "(1, 60)"
