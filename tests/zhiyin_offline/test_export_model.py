"""`export_model` on small checkpoints of every supported kind, and its refusals."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer
from transformers import AutoModel

from encoder_service.backend import pad
from encoder_service.model_directory import GRAPH_FILE, MANIFEST_FILE, TOKENIZER_FILE, read_parity, verify
from encoder_service.onnx_backend import OnnxBackend
from encoder_service.parity import ParityError
from encoder_service.tokenization import TextTokenizer
from zhiyin_offline.export import CheckpointError, ExportError, export_model

TEXTS = ["abc de", "喜欢听音乐", "a", "the quick brown fox " * 30]


def independent_vectors(folder: Path, pooling: str, normalize: bool, max_tokens: int, texts: list[str]) -> np.ndarray:
    """Text by text, unpadded, from the hidden states: shares no code with the export."""
    model = AutoModel.from_pretrained(str(folder)).eval()
    tokenizer = Tokenizer.from_file(str(folder / TOKENIZER_FILE))
    tokenizer.no_padding()
    tokenizer.enable_truncation(max_tokens)
    vectors = []
    for text in texts:
        with torch.no_grad():
            hidden = model(torch.tensor([tokenizer.encode(text).ids])).last_hidden_state[0].numpy()
        vector = {"mean": hidden.mean(0), "cls": hidden[0], "max": hidden.max(0)}[pooling]
        vectors.append(vector / np.linalg.norm(vector) if normalize else vector)
    return np.stack(vectors)


def served_vectors(directory: Path, texts: list[str], role: str = "raw") -> np.ndarray:
    manifest = verify(directory)
    tokenizer = TextTokenizer(directory / TOKENIZER_FILE, manifest.max_tokens, manifest.prompts)
    rows = [t.token_ids for t in tokenizer.tokenize([tokenizer.prompted(text, role) for text in texts])]
    return OnnxBackend(directory / GRAPH_FILE).encode(*pad(rows, manifest.pad_token_id))


@pytest.mark.parametrize("pooling", ["mean", "cls", "max"])
@pytest.mark.parametrize("normalize", [True, False])
def test_pooling_and_normalisation_are_those_of_the_checkpoint(
    make_checkpoint, tmp_path: Path, pooling: str, normalize: bool
) -> None:
    folder = make_checkpoint(pooling=pooling, normalize=normalize)
    manifest = export_model(str(folder), tmp_path / "model")
    assert (manifest.pooling, manifest.normalized, manifest.dimensions) == (pooling, normalize, 32)
    expected = independent_vectors(folder, pooling, normalize, 40, TEXTS)
    np.testing.assert_allclose(served_vectors(tmp_path / "model", TEXTS), expected, atol=1e-5)


def test_a_plain_checkpoint_gets_mean_pooling_and_length_one(make_checkpoint, tmp_path: Path) -> None:
    folder = make_checkpoint(modules=False, max_seq_length=None)
    manifest = export_model(str(folder), tmp_path / "model")
    assert (manifest.pooling, manifest.normalized, manifest.max_tokens) == ("mean", True, 64)
    expected = independent_vectors(folder, "mean", True, 64, TEXTS)
    np.testing.assert_allclose(served_vectors(tmp_path / "model", TEXTS), expected, atol=1e-5)


def test_prompts_come_from_the_checkpoint(make_checkpoint, tmp_path: Path) -> None:
    folder = make_checkpoint(prompts={"query": "q: ", "document": "p: ", "clustering": "c: "})
    manifest = export_model(str(folder), tmp_path / "model")
    assert manifest.prompts == {"query": "q: ", "passage": "p: "}
    for role, prompt in (("query", "q: "), ("passage", "p: "), ("raw", "")):
        expected = independent_vectors(folder, "mean", True, 40, [prompt + text for text in TEXTS])
        np.testing.assert_allclose(served_vectors(tmp_path / "model", TEXTS, role), expected, atol=1e-5)


def test_given_prompts_replace_those_of_the_checkpoint_and_make_another_space(make_checkpoint, tmp_path: Path) -> None:
    folder = make_checkpoint(prompts={"query": "q: "})
    own = export_model(str(folder), tmp_path / "own")
    given = export_model(str(folder), tmp_path / "given", prompts={"passage": "x "})
    assert given.prompts == {"passage": "x "}
    assert given.space_fingerprint != own.space_fingerprint


def test_the_space_is_the_same_for_every_precision_and_differs_by_weights(make_checkpoint, tmp_path: Path) -> None:
    folder = make_checkpoint()
    fp32 = export_model(str(folder), tmp_path / "fp32")
    fp16 = export_model(str(folder), tmp_path / "fp16", precision="fp16")
    moved = folder.with_name("another-name")
    shutil.copytree(folder, moved)
    renamed = export_model(str(moved), tmp_path / "renamed")
    other = export_model(str(make_checkpoint(seed=1)), tmp_path / "other")
    assert fp32.space_fingerprint == fp16.space_fingerprint == renamed.space_fingerprint
    assert other.space_fingerprint != fp32.space_fingerprint
    assert fp32.build_fingerprint("CPU", "1") != fp16.build_fingerprint("CPU", "1")
    assert fp32.build_fingerprint("CPU", "1") != fp32.build_fingerprint("CUDA", "1")


def test_fp16_is_half_the_size_and_close(make_checkpoint, tmp_path: Path) -> None:
    folder = make_checkpoint()
    export_model(str(folder), tmp_path / "fp32")
    manifest = export_model(str(folder), tmp_path / "fp16", precision="fp16")
    assert manifest.precision == "fp16"
    vectors = served_vectors(tmp_path / "fp16", TEXTS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(vectors, served_vectors(tmp_path / "fp32", TEXTS), atol=5e-3)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1.0, atol=2e-3)


def test_the_tokenizer_is_saved_without_the_training_s_padding_and_truncation(make_checkpoint, tmp_path: Path) -> None:
    export_model(str(make_checkpoint()), tmp_path / "model")
    saved = json.loads((tmp_path / "model" / TOKENIZER_FILE).read_text())
    assert saved["padding"] is None
    assert saved["truncation"] is None


def test_the_stored_vectors_cover_both_languages_and_truncation(make_checkpoint, tmp_path: Path) -> None:
    export_model(str(make_checkpoint()), tmp_path / "model")
    known = read_parity(tmp_path / "model")
    assert any("\u4e00" <= char <= "\u9fff" for text in known.texts for char in text.text)
    assert any(len(text.token_ids) == 40 for text in known.texts)
    assert {text.role for text in known.texts} == {"query", "passage", "raw"}
    assert known.vectors.shape == (len(known.texts), 32)


def test_a_second_export_does_nothing_and_a_damaged_one_is_written_anew(make_checkpoint, tmp_path: Path) -> None:
    folder, out = make_checkpoint(), tmp_path / "model"
    told: list[str] = []
    first = export_model(str(folder), out, progress=told.append)
    assert any("exporting" in line for line in told)
    written = (out / GRAPH_FILE).stat().st_ino
    told.clear()
    assert export_model(str(folder), out, progress=told.append) == first
    assert told[-1].endswith("is up to date")
    assert (out / GRAPH_FILE).stat().st_ino == written
    (out / GRAPH_FILE).write_bytes(b"damaged")
    export_model(str(folder), out)
    assert verify(out).space_fingerprint == first.space_fingerprint
    other = export_model(str(make_checkpoint(seed=1)), out)
    assert verify(out) == other
    assert [path.name for path in tmp_path.iterdir()] == ["model"], "nothing is left beside the directory"


def test_a_failed_export_leaves_what_was_there(
    make_checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "model"
    before = export_model(str(make_checkpoint()), out)

    def wrong(*_: object, **__: object) -> None:
        raise ParityError("vectors differ")

    monkeypatch.setattr("zhiyin_offline.export.exporter.check_serving", wrong)
    with pytest.raises(ExportError, match="vectors differ"):
        export_model(str(make_checkpoint(seed=1)), out)
    assert verify(out) == before
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_something_else_in_the_way_is_not_replaced(make_checkpoint, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match="no model directory"):
        export_model(str(make_checkpoint()), tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_an_unknown_precision_is_refused(make_checkpoint, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="fp32"):
        export_model(str(make_checkpoint()), tmp_path / "model", precision="int3")


def test_missing_weights_are_refused_instead_of_made_up(make_checkpoint, tmp_path: Path) -> None:
    folder = make_checkpoint()
    weights = load_file(folder / "model.safetensors")
    del weights["encoder.layer.1.attention.self.query.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(CheckpointError, match="missing"):
        export_model(str(folder), tmp_path / "model")
    assert not (tmp_path / "model").exists()


def test_a_pooling_that_is_not_exported_is_named(make_checkpoint, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="mean_sqrt_len"):
        export_model(str(make_checkpoint(pooling="mean_sqrt_len")), tmp_path / "model")


def test_a_dense_module_is_named(make_checkpoint, tmp_path: Path) -> None:
    folder = make_checkpoint()
    listed = json.loads((folder / "modules.json").read_text())
    listed.insert(2, {"idx": 2, "name": "2", "path": "2_Dense", "type": "sentence_transformers.models.Dense"})
    (folder / "modules.json").write_text(json.dumps(listed))
    with pytest.raises(CheckpointError, match="Dense"):
        export_model(str(folder), tmp_path / "model")


def test_an_e5_model_without_prompts_is_exported_with_a_warning(make_checkpoint, tmp_path: Path) -> None:
    told: list[str] = []
    export_model(str(make_checkpoint(name="multilingual-e5-tiny")), tmp_path / "model", progress=told.append)
    assert any("query: " in line for line in told if line.startswith("warning"))


def test_a_folder_that_is_no_checkpoint_says_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json"):
        export_model(str(tmp_path), tmp_path / "model")


def test_an_installed_package_without_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="carries no"):
        export_model("numpy", tmp_path / "model")


def test_a_hub_id_without_a_hub_gives_a_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="no installed package, and could not be loaded from the hub"):
        export_model("some-owner/some-model-that-is-not-cached", tmp_path / "model")
    with pytest.raises(CheckpointError, match="no valid hub id"):
        export_model("no such//thing", tmp_path / "model")


def test_the_manifest_is_the_last_word_on_the_directory(make_checkpoint, tmp_path: Path) -> None:
    manifest = export_model(str(make_checkpoint()), tmp_path / "model")
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == sorted([*manifest.files, MANIFEST_FILE])
    assert manifest.parity.max_abs_difference < 2e-5
