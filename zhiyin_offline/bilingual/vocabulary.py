"""The tokenizer: XLM-R's, cut down to the pieces that Chinese and English text needs."""

from __future__ import annotations

import lzma
from importlib.resources import files

import numpy as np
from numpy.typing import NDArray
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from zhiyin_offline.bilingual.packed_model import SPECIAL_PIECES, PackedModel, PackedModelError

PAD_TOKEN_ID = 1
_UNKNOWN_ID = 3
_WORD_BOUNDARY = "▁"
_ASIDE = "\ufdd0"  # a noncharacter: Unicode keeps it for internal use, so no text has it


def kept_pieces(model: PackedModel) -> NDArray[np.int64]:
    """Ids in the full vocabulary of the pieces that stay, ascending; the position is the new id.

    Stored as one bit a piece. All special tokens, all Han characters, longer Han pieces of GB2312 and Big5, symbols,
    single letters, and the pieces of the 50,000 most frequent English words: 49,747 of 250,002.

    Raises:
        PackedModelError: The list is for another vocabulary.
    """
    packed = lzma.decompress(files("zhiyin_offline.bilingual").joinpath("kept_pieces.xz").read_bytes())
    count = len(model.pieces)
    if len(packed) != (count + 7) // 8:
        raise PackedModelError(f"the list of kept pieces is for another vocabulary than one of {count} pieces")
    return np.flatnonzero(np.unpackbits(np.frombuffer(packed, np.uint8), count=count)).astype(np.int64)


def build_tokenizer(model: PackedModel, keep: NDArray[np.int64]) -> Tokenizer:
    """The tokenizer of these pieces, without padding and truncation."""
    pieces = [(model.pieces[old], float(model.scores[old])) for old in keep]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=_UNKNOWN_ID, byte_fallback=False))
    tokenizer.normalizer = _normalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(replacement=_WORD_BOUNDARY, prepend_scheme="always", split=True)
    tokenizer.decoder = decoders.Metaspace(replacement=_WORD_BOUNDARY, prepend_scheme="always", split=True)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer.add_special_tokens(
        [
            *(AddedToken(piece, normalized=False, special=True) for piece in SPECIAL_PIECES),
            AddedToken("<mask>", lstrip=True, normalized=False, special=True),
        ]
    )
    return tokenizer


def _normalizer() -> normalizers.Normalizer:
    """SentencePiece's nmt_nfkc as XLM-R has it: NFKC and one kind of space, but ～ (U+FF5E) stays what it is."""
    return normalizers.Sequence(
        [
            normalizers.Replace("～", _ASIDE),
            normalizers.Nmt(),
            normalizers.NFKC(),
            normalizers.Replace(_ASIDE, "～"),
            normalizers.Replace("\u200d", " "),  # a zero-width joiner was a space when XLM-R was trained
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )
