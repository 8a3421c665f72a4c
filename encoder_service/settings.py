"""The settings of the encoder service: `--flags`, `ZHIYIN_ENCODER_*` variables, or a file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator
from pydantic_settings import NoDecode

from encoder_service.onnx_backend import ProviderName
from service_runtime.settings import ServerSettings, service_settings_config


class EncoderSettings(ServerSettings):
    """Which model serves, on what, and how much it accepts."""

    model_config = service_settings_config("ENCODER")

    port: int = Field(50051, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    metrics_port: int = Field(9051, ge=0, le=65535, description="Port of the Prometheus endpoint; 0 switches it off.")
    model_dir: Path = Field(description="The model directory, written by `zhiyin model export`.")
    providers: Annotated[tuple[ProviderName, ...], NoDecode] = Field(
        ("cpu",),
        min_length=1,
        description="Execution providers, best first, separated by commas: cuda, tensorrt, cpu. The first must serve.",
    )
    allow_provider_fallback: bool = Field(
        False, description="Serve on a later provider when the first cannot start, instead of refusing."
    )
    device_id: int = Field(0, ge=0, description="Which GPU.")
    tensorrt_cache_dir: Path | None = Field(None, description="Where TensorRT keeps its engines between starts.")
    threads: int = Field(0, ge=0, le=512, description="Threads inside one operator on the CPU; 0: as many as cores.")
    max_batch_tokens: int | None = Field(
        None,
        ge=16,
        le=1_048_576,
        description="Tokens of a batch, padding included. Unset: 512 on the CPU, 16384 on a GPU.",
    )
    max_queued_tokens: int | None = Field(
        None, ge=512, description="Tokens that may wait; beyond, calls are refused. Unset: 128 times max_batch_tokens."
    )
    cache_bytes: int = Field(128 << 20, ge=0, description="Bytes of the cache of vectors; 0 switches it off.")
    max_texts_per_request: int = Field(
        256, ge=1, le=4096, description="Texts of a request. Lowered where an answer would pass 3 MiB."
    )
    max_text_bytes: int = Field(32_768, ge=16, le=1 << 20, description="UTF-8 bytes of one text.")
    stream_read_ahead: int = Field(4, ge=1, le=64, description="Batches of one stream that are worked on at once.")

    @field_validator("providers", mode="before")
    @classmethod
    def _split_commas(cls, value: Any) -> Any:
        if isinstance(value, str):
            return tuple(part.strip() for part in value.split(",") if part.strip())
        if isinstance(value, list | tuple):
            return tuple(part for word in value for part in str(word).split(",") if part)
        return value
