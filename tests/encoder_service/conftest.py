"""A model without weights: a word tokenizer and the fake backend, behind the real service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.rpc import status_pb2
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from encoder_service.fake_backend import FakeBackend
from encoder_service.loading import LoadedModel
from encoder_service.model_directory import ModelManifest, ParityReport
from encoder_service.service import EncoderService
from encoder_service.servicer import EncoderServicer
from encoder_service.settings import EncoderSettings
from encoder_service.tokenization import TextTokenizer
from service_runtime.server import running_server
from zhiyin.encoder.v1.encoder_service_pb2_grpc import EncoderServiceStub

MAX_TOKENS = 32
WORDS = ["[PAD]", "[CLS]", "[SEP]", "[UNK]", "find", "item", *(f"w{i}" for i in range(2000))]


@pytest.fixture(scope="session")
def word_tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One token a word (w0 to w1999), [CLS] and [SEP] around; saved with padding and truncation as models often are."""
    tokenizer = Tokenizer(WordLevel({word: i for i, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = Whitespace()
    tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    tokenizer.enable_padding(length=128)
    tokenizer.enable_truncation(8)
    path = tmp_path_factory.mktemp("tokenizer") / "tokenizer.json"
    tokenizer.save(str(path))
    return path


@pytest.fixture(scope="session")
def word_tokenizer(word_tokenizer_file: Path) -> TextTokenizer:
    return TextTokenizer(word_tokenizer_file, MAX_TOKENS, {"query": "find ", "passage": "item "})


def fake_manifest() -> ModelManifest:
    return ModelManifest(
        format_version=1,
        name="fake",
        space_fingerprint="f" * 32,
        export_key="",
        dimensions=8,
        max_tokens=MAX_TOKENS,
        pad_token_id=0,
        pooling="mean",
        normalized=True,
        prompts={"query": "find ", "passage": "item "},
        precision="fp32",
        exported_with={},
        parity=ParityReport(max_abs_difference=0.0, min_cosine=1.0),
        files={},
    )


Serving = Callable[..., AbstractAsyncContextManager[Any]]


@pytest.fixture
def serving(word_tokenizer: TextTokenizer, tmp_path: Path) -> Serving:
    """`async with serving(backend, **settings) as stub:` the real service over a port, with the fake model."""

    @asynccontextmanager
    async def start(backend: FakeBackend | None = None, **settings: object) -> AsyncIterator[EncoderServiceStub]:
        service, chosen = fake_service(backend or FakeBackend(), word_tokenizer, tmp_path, settings)
        async with running_server(service, chosen) as address, grpc.aio.insecure_channel(address) as channel:
            yield EncoderServiceStub(channel)

    return start


@pytest.fixture
def serving_in_process(word_tokenizer: TextTokenizer, tmp_path: Path) -> Serving:
    """The same without a port: yields the servicer, for what a network would blur."""

    @asynccontextmanager
    async def start(backend: FakeBackend, **settings: object) -> AsyncIterator[EncoderServicer]:
        service, _ = fake_service(backend, word_tokenizer, tmp_path, settings)
        await service.start()
        try:
            yield service.servicer
        finally:
            await service.close()

    return start


def fake_service(
    backend: FakeBackend, tokenizer: TextTokenizer, model_dir: Path, settings: dict[str, object]
) -> tuple[EncoderService, EncoderSettings]:
    speed = settings.pop("tokens_per_second", 1e6)
    defaults = {"model_dir": model_dir, "port": 0, "metrics_port": 0, "drain_delay_s": 0, "grace_s": 5}
    chosen = EncoderSettings(**{**defaults, **settings})

    def load(s: EncoderSettings) -> LoadedModel:
        return LoadedModel(
            manifest=fake_manifest(),
            build_fingerprint="b" * 32,
            tokenizer=tokenizer,
            backend=backend,
            max_batch_tokens=s.max_batch_tokens or 64,
            max_queued_tokens=s.max_queued_tokens or 4096,
            tokens_per_second=speed,
            default_temperature=0.035,
        )

    return EncoderService(chosen, load), chosen


@pytest.fixture
def status_of() -> Callable[[grpc.aio.AioRpcError], status_pb2.Status]:
    """The google.rpc.Status that an error carries."""

    def read(error: grpc.aio.AioRpcError) -> status_pb2.Status:
        for key, value in error.trailing_metadata() or ():
            if key == "grpc-status-details-bin":
                return status_pb2.Status.FromString(value)
        raise AssertionError("no details")

    return read
