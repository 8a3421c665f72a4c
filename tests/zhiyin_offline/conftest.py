"""Checkpoints of a few kilobytes with random weights, in the shapes that real ones come in."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from tokenizers.processors import TemplateProcessing
from transformers import BertConfig, BertModel

MakeCheckpoint = Callable[..., Path]


def write_json(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> MakeCheckpoint:
    """`make(pooling="mean", normalize=True, prompts={...}, ...)` -> a sentence-transformers folder."""

    def make(
        name: str = "tiny",
        pooling: str | None = "mean",
        normalize: bool = True,
        prompts: dict[str, str] | None = None,
        max_seq_length: int | None = 40,
        seed: int = 0,
        modules: bool = True,
    ) -> Path:
        folder = tmp_path_factory.mktemp("checkpoint") / name
        folder.mkdir()
        vocabulary = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *"abcdefghijklmnopqrstuvwxyz", *"电影音乐旅游喜欢听看去"]
        vocabulary += [f"##{token}" for token in vocabulary[4:30]]
        tokenizer = Tokenizer(WordPiece({token: i for i, token in enumerate(vocabulary)}, unk_token="[UNK]"))
        tokenizer.normalizer = BertNormalizer()
        tokenizer.pre_tokenizer = BertPreTokenizer()
        tokenizer.post_processor = TemplateProcessing(
            single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
        tokenizer.enable_truncation(12)
        tokenizer.enable_padding(length=12)
        tokenizer.save(str(folder / "tokenizer.json"))
        torch.manual_seed(seed)
        config = BertConfig(
            vocab_size=len(vocabulary),
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=64,
            max_position_embeddings=64,
            pad_token_id=0,
        )
        BertModel(config).save_pretrained(str(folder))
        if max_seq_length is not None:
            write_json(folder / "sentence_bert_config.json", {"max_seq_length": max_seq_length, "do_lower_case": False})
        if prompts is not None:
            write_json(folder / "config_sentence_transformers.json", {"prompts": prompts, "default_prompt_name": None})
        if modules:
            kinds = ["Transformer", "Pooling"] + (["Normalize"] if normalize else [])
            paths = ["", "1_Pooling", "2_Normalize"]
            listed = [
                {"idx": i, "name": str(i), "path": paths[i], "type": f"sentence_transformers.models.{kind}"}
                for i, kind in enumerate(kinds)
            ]
            write_json(folder / "modules.json", listed)
            modes = {
                "mean_tokens": "mean",
                "cls_token": "cls",
                "max_tokens": "max",
                "mean_sqrt_len_tokens": "mean_sqrt_len",
            }
            flags = {f"pooling_mode_{flag}": mode == pooling for flag, mode in modes.items()}
            write_json(folder / "1_Pooling" / "config.json", {"word_embedding_dimension": 32, **flags})
        return folder

    return make
