"""The Chinese-English checkpoint: its prompts make the difference between right and wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from encoder_service.backend import pad
from encoder_service.model_directory import GRAPH_FILE, TOKENIZER_FILE, Role, verify
from encoder_service.onnx_backend import OnnxBackend
from encoder_service.tokenization import TextTokenizer

USERS = [
    "喜欢看电影，最近看了《哪吒之魔童降世》",
    "喜欢听音乐，喜欢周杰伦和 Taylor Swift",
    "喜欢旅游，去过海南和云南",
]
ITEMS = ["最新上映的电影《长津湖》", "周杰伦的新专辑《最伟大的作品》", "云南丽江的旅游攻略"]


def encode(directory: Path, texts: list[str], role: Role) -> np.ndarray:
    manifest = verify(directory)
    tokenizer = TextTokenizer(directory / TOKENIZER_FILE, manifest.max_tokens, manifest.prompts)
    rows = [t.token_ids for t in tokenizer.tokenize([tokenizer.prompted(text, role) for text in texts])]
    backend = OnnxBackend(directory / GRAPH_FILE)
    batches = [rows[i : i + 8] for i in range(0, len(rows), 8)]
    return np.concatenate([backend.encode(*pad(batch, manifest.pad_token_id)) for batch in batches])


def test_film_lover_film_music_lover_music_traveller_travel(bilingual_model_dir: Path) -> None:
    users = encode(bilingual_model_dir, USERS, "query")
    items = encode(bilingual_model_dir, ITEMS, "passage")
    assert (users @ items.T).argmax(axis=1).tolist() == [0, 1, 2]


def test_its_manifest_has_the_prompts_and_the_limit_of_the_checkpoint(bilingual_model_dir: Path) -> None:
    manifest = verify(bilingual_model_dir)
    assert manifest.prompts == {"query": "query: ", "passage": "passage: "}
    assert (manifest.max_tokens, manifest.dimensions, manifest.pad_token_id) == (512, 384, 1)
    assert manifest.parity.max_abs_difference < 1e-6


def test_translations_meet(bilingual_model_dir: Path) -> None:
    chinese = encode(bilingual_model_dir, ["跑步鞋", "钢琴协奏曲", "悬疑电影"], "query")
    english = encode(bilingual_model_dir, ["running shoes", "piano concerto", "mystery film"], "query")
    assert (chinese @ english.T).argmax(axis=1).tolist() == [0, 1, 2]


def test_chinese_sentences_are_as_close_as_people_find_them(bilingual_model_dir: Path, test_data: Path) -> None:
    lines = (test_data / "stsb-zh" / "sts-b-dev.txt").read_text(encoding="utf-8").splitlines()
    pairs = [fields for line in lines[::10] if len(fields := line.split("\t")) == 3]
    left, right = (encode(bilingual_model_dir, [pair[side] for pair in pairs], "query") for side in (0, 1))
    people = np.array([float(pair[2]) for pair in pairs])
    assert len(pairs) > 100
    assert np.corrcoef(_ranks((left * right).sum(axis=1)), _ranks(people))[0, 1] > 0.75  # Spearman; .819 on all pairs


def _ranks(values: np.ndarray) -> np.ndarray:
    """Ranks with ties at their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
