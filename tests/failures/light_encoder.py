"""`python -m tests.failures.light_encoder --model-dir FOLDER --port N`: the encoder service, with hashes for a model.

Everything but the arithmetic is the real thing: tokenizer, queue, batching, admission, drain. It starts in a moment.
ZHIYIN_TEST_SECONDS_PER_TOKEN makes it as slow as a model.
"""

from __future__ import annotations

import os
import sys

from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace

from encoder_service.fake_backend import FakeBackend
from encoder_service.loading import LoadedModel
from encoder_service.model_directory import ModelManifest, ParityReport
from encoder_service.service import EncoderService
from encoder_service.settings import EncoderSettings
from encoder_service.tokenization import TextTokenizer
from service_runtime.server import run_service
from service_runtime.settings import load_settings

DIMENSIONS = 16
MAX_TOKENS = 64
_WORDS = 5000


def load(settings: EncoderSettings) -> LoadedModel:
    """One token a word; a word is its number, as in `w17`."""
    seconds = float(os.environ.get("ZHIYIN_TEST_SECONDS_PER_TOKEN", "0"))
    settings.model_dir.mkdir(parents=True, exist_ok=True)
    words = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *(f"w{i}" for i in range(_WORDS))])}
    tokenizer = Tokenizer(WordLevel(words, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    path = settings.model_dir / f"tokenizer-{os.getpid()}.json"
    tokenizer.save(str(path))
    prompts = {"query": "", "passage": ""}
    manifest = ModelManifest(
        format_version=1,
        name="light",
        space_fingerprint="1" * 32,
        export_key="",
        dimensions=DIMENSIONS,
        max_tokens=MAX_TOKENS,
        pad_token_id=0,
        pooling="mean",
        normalized=True,
        prompts=prompts,
        precision="fp32",
        exported_with={},
        parity=ParityReport(max_abs_difference=0.0, min_cosine=1.0),
        files={},
    )
    budget = settings.max_batch_tokens or 64
    return LoadedModel(
        manifest=manifest,
        build_fingerprint="2" * 32,
        tokenizer=TextTokenizer(path, MAX_TOKENS, prompts),
        backend=FakeBackend(DIMENSIONS, seconds),
        max_batch_tokens=budget,
        max_queued_tokens=settings.max_queued_tokens or 128 * budget,
        tokens_per_second=1 / seconds if seconds else 1e6,
        default_temperature=0.035,
    )


if __name__ == "__main__":
    chosen = load_settings(EncoderSettings, sys.argv[1:])
    run_service(lambda: EncoderService(chosen, load), chosen)
