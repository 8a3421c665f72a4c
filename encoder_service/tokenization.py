"""Text to token ids, with the prompt of its role, cut at what the model can take."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from encoder_service.model_directory import PromptRole, Role


@dataclass(frozen=True, slots=True)
class TokenizedText:
    """A text as the model reads it.

    Attributes:
        token_ids: Special tokens and prompt included.
        truncated: Whether something was cut.
    """

    token_ids: list[int]
    truncated: bool


class TextTokenizer:
    """The tokenizer of a model directory. Thread-safe.

    Args:
        tokenizer_file: A tokenizer.json.
        max_tokens: Longer texts are cut; counts prompt and special tokens.
        prompts: Put before a text, by role.
    """

    def __init__(self, tokenizer_file: Path, max_tokens: int, prompts: Mapping[PromptRole, str]) -> None:
        self._tokenizer = Tokenizer.from_file(str(tokenizer_file))
        # A saved tokenizer often carries its training's padding and truncation (128 in all-MiniLM-L6-v2).
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(max_tokens)
        self._prompts: dict[str, str] = {str(role): prompt for role, prompt in prompts.items()}

    def prompted(self, text: str, role: Role) -> str:
        """The text with the prompt of its role. Two texts that are equal here have the same vector."""
        return self._prompts.get(role, "") + text

    def tokenize(self, prompted_texts: Sequence[str]) -> list[TokenizedText]:
        """Token ids of each text, in order. Takes 15 to 20 us a short text and releases the GIL."""
        encodings = self._tokenizer.encode_batch_fast(list(prompted_texts))
        return [TokenizedText(e.ids, bool(e.overflowing)) for e in encodings]
