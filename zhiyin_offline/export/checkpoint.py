"""Reads what a checkpoint says about itself: the sentence-transformers files beside the weights."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from tokenizers import Tokenizer

from encoder_service.model_directory import PromptRole
from zhiyin_offline.export.locate import CheckpointError, locate

Pooling = Literal["mean", "cls", "max"]

# These number positions from the padding id on, so that many fewer tokens fit than positions exist.
_OFFSET_POSITIONS = {"roberta", "xlm-roberta", "camembert", "mpnet", "xlm-roberta-xl"}


@dataclass(frozen=True)
class Checkpoint:
    """An encoder checkpoint.

    Attributes:
        name: For people.
        folder: Holds the files.
        config: config.json.
        pooling: How token vectors become one.
        normalized: Whether the vector is scaled to length 1.
        dimensions: Components of a vector.
        max_tokens: Tokens a text may have, special tokens included.
        pad_token_id: Padding.
        prompts: Put before a text, by role.
        warnings: What a person should know.
    """

    name: str
    folder: Path
    config: Mapping[str, Any]
    pooling: Pooling
    normalized: bool
    dimensions: int
    max_tokens: int
    pad_token_id: int
    prompts: Mapping[PromptRole, str]
    warnings: tuple[str, ...]

    def tokenizer(self) -> Tokenizer:
        """The tokenizer, without padding and truncation."""
        tokenizer = _load_tokenizer(self.folder)
        tokenizer.no_padding()
        tokenizer.no_truncation()
        return tokenizer


def open_checkpoint(source: str, prompts: Mapping[PromptRole, str] | None = None) -> Checkpoint:
    """Finds and reads a checkpoint, without its weights.

    A plain checkpoint without modules.json gets mean pooling and normalisation.

    Args:
        source: A folder, an installed package, or a hub id.
        prompts: Instead of those of the checkpoint.

    Raises:
        CheckpointError: Not found, damaged, or of a kind that cannot be exported.
    """
    location = locate(source)
    folder = location.folder
    config = _read_json(folder / "config.json")
    pooling, normalized = _read_modules(folder)
    pad_token_id = config.get("pad_token_id")
    own_prompts = _read_prompts(folder)
    chosen = dict(prompts) if prompts is not None else own_prompts
    warnings = []
    if not chosen and "e5" in f"{location.name} {config.get('_name_or_path', '')}".lower().replace("-", " ").split():
        warnings.append(
            "this looks like an E5 model, which needs the prompts `query: ` and `passage: `, and its files name none; "
            "give them, or similarities will be poor"
        )
    return Checkpoint(
        name=location.name,
        folder=folder,
        config=config,
        pooling=pooling,
        normalized=normalized,
        dimensions=int(config["hidden_size"]),
        max_tokens=_max_tokens(folder, config),
        pad_token_id=int(pad_token_id) if pad_token_id is not None else 0,
        prompts=chosen,
        warnings=tuple(warnings),
    )


def _read_modules(folder: Path) -> tuple[Pooling, bool]:
    if not (folder / "modules.json").is_file():
        return "mean", True
    pooling: Pooling = "mean"
    kinds = []
    for module in _read_json(folder / "modules.json"):
        kind = str(module["type"]).rsplit(".", 1)[-1]
        kinds.append(kind)
        if kind == "Pooling":
            pooling = _read_pooling(folder / module["path"] / "config.json")
        elif kind not in ("Transformer", "Normalize"):
            raise CheckpointError(
                f"modules.json has a {kind} module; only Transformer, Pooling and Normalize are exported"
            )
    if kinds[:2] != ["Transformer", "Pooling"]:
        raise CheckpointError(
            f"modules.json lists {', '.join(kinds)}; expected Transformer, Pooling and perhaps Normalize"
        )
    return pooling, "Normalize" in kinds


def _read_pooling(path: Path) -> Pooling:
    raw = _read_json(path)
    if raw.get("include_prompt") is False:
        raise CheckpointError(f"{path}: pooling without the prompt (include_prompt: false) is not exported")
    if "pooling_mode" in raw:
        mode = raw["pooling_mode"]
        modes = [mode] if isinstance(mode, str) else list(mode)
    else:
        modes = [
            k.removeprefix("pooling_mode_") for k, on in raw.items() if k.startswith("pooling_mode_") and on is True
        ]
        modes = [mode.removesuffix("_tokens").removesuffix("_token") for mode in modes]
    match modes:
        case ["mean"]:
            return "mean"
        case ["cls"]:
            return "cls"
        case ["max"]:
            return "max"
    raise CheckpointError(f"{path}: pooling {'+'.join(modes) or 'of no kind'} is not exported; mean, cls and max are")


def _read_prompts(folder: Path) -> dict[PromptRole, str]:
    path = folder / "config_sentence_transformers.json"
    raw = _read_json(path) if path.is_file() else {}
    named = raw.get("prompts") or {}
    default = named.get(raw.get("default_prompt_name") or "", "")
    by_role: dict[PromptRole, str] = {
        "query": named.get("query") or default,
        "passage": named.get("passage") or named.get("document") or default,
    }
    return {role: prompt for role, prompt in by_role.items() if prompt}


def _max_tokens(folder: Path, config: Mapping[str, Any]) -> int:
    positions = config.get("max_position_embeddings")
    limits = []
    if positions is not None:
        offset = int(config.get("pad_token_id") or 0) + 1 if config.get("model_type") in _OFFSET_POSITIONS else 0
        limits.append(int(positions) - offset)
    path = folder / "sentence_bert_config.json"
    own = _read_json(path) if path.is_file() else {}
    if own.get("do_lower_case"):
        raise CheckpointError(f"{path}: do_lower_case is not exported; put a Lowercase normalizer into tokenizer.json")
    if own.get("max_seq_length"):
        limits.append(int(own["max_seq_length"]))
    elif (folder / "tokenizer_config.json").is_file():
        limit = _read_json(folder / "tokenizer_config.json").get("model_max_length")
        if limit is not None and limit < 1_000_000:  # "no limit" is stored as 10^30
            limits.append(int(limit))
    if not limits:
        raise CheckpointError(f"{folder} does not say how many tokens a text may have")
    return min(limits)


def _load_tokenizer(folder: Path) -> Tokenizer:
    path = folder / "tokenizer.json"
    if path.is_file():
        return Tokenizer.from_file(str(path))
    from transformers import AutoTokenizer

    try:
        return Tokenizer.from_str(AutoTokenizer.from_pretrained(str(folder)).backend_tokenizer.to_str())
    except Exception as error:
        raise CheckpointError(
            f"{folder} has no tokenizer.json and none could be made from its files: {error}"
        ) from error


def _read_json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error
