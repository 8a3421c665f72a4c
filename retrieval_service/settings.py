"""Settings of the retrieval service; environment prefix ZHIYIN_RETRIEVAL_."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from retrieval_service.inference.inference_file import read_inference
from service_runtime.settings import ServerSettings, service_settings_config
from service_runtime.sql import check_url


class RetrievalSettings(ServerSettings):
    """Where items are kept, how they are indexed, and who encodes them."""

    model_config = service_settings_config("RETRIEVAL")

    port: int = Field(50052, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    data_dir: Path = Field(Path(".zhiyin/retrieval"), description="Folder of the item store and the snapshots.")
    store_url: str = Field(
        "",
        repr=False,
        description="URL of the item store's database, such as postgresql+psycopg://zhiyin@db/items; empty: a SQLite "
        "file in data_dir. A password goes into the variable or the file: flags are visible to everybody.",
    )
    default_deadline_s: float = Field(
        120.0, gt=0, le=600, description="Deadline, in seconds, of a call without one: time to encode a full batch."
    )
    encoder_address: str = Field("127.0.0.1:50051", description="host:port of the encoder service.")
    encoder_tls_ca_file: Path | None = Field(None, description="PEM certificates that sign the encoder's; set: TLS.")
    encoder_tls_cert_file: Path | None = Field(None, description="PEM certificate shown to the encoder (mTLS).")
    encoder_tls_key_file: Path | None = Field(None, description="PEM key of that certificate.")
    encoder_timeout_s: float = Field(
        5.0, gt=0, le=60, description="Longest wait for the encoder by a search or a small write, in seconds."
    )
    encoder_stall_s: float = Field(
        60.0, gt=0, le=600, description="Longest wait for the next vectors of a large write, in seconds."
    )
    inferred_attributes_file: Path | None = Field(
        None, description="YAML file of attributes to infer from the texts of items (docs/intents.md)."
    )
    max_items_per_batch: int = Field(1000, ge=1, le=10_000, description="Items in one write.")
    max_items_per_catalog: int = Field(
        0, ge=0, description="Items of one catalogue; 0: no limit but memory (about 3.5 KB an item at 384 dimensions)."
    )
    max_catalogs: int = Field(0, ge=0, description="Catalogues, `default` among them; 0: no limit.")
    max_space_versions: int = Field(
        8,
        ge=0,
        le=64,
        description="Live versions of spaces beside `semantic` a catalogue may have; each is an index in memory.",
    )
    max_space_dimensions: int = Field(
        1024, ge=1, le=4096, description="Components of a vector in a space beside `semantic`."
    )
    max_queued_bytes: int = Field(
        64 << 20, ge=1 << 16, description="Bytes of write requests that may wait; more are refused as overload."
    )
    item_cache_bytes: int = Field(256 << 20, ge=0, description="Bytes of items kept in memory for answers.")
    search_threads: int = Field(8, ge=1, le=256, description="Threads for searches and for reading large requests.")
    searches_at_once: int = Field(
        0, ge=0, le=1024, description="Searches let in at once; 0: as many as cores, at most search_threads."
    )
    graph_min_vectors: int = Field(
        10_000, ge=1, description="From so many items on a graph index is used; below, comparing exactly is as fast."
    )
    rebuild_above: float = Field(
        0.2, gt=0, le=1, description="Share of dead rows, in (0,1], above which an index is rebuilt in the background."
    )
    snapshot_every_writes: int = Field(50_000, ge=1, description="A snapshot is due after so many changed vectors.")
    snapshot_every_s: float = Field(
        600.0, gt=0, description="A snapshot is due after so many seconds in which anything changed."
    )
    snapshot_at_close_s: float = Field(
        15.0, ge=0, description="Seconds that snapshots at a stop may take in all; 0: none are made."
    )

    @field_validator("inferred_attributes_file")
    @classmethod
    def _inferred_attributes_file_is_right(cls, path: Path | None) -> Path | None:
        if path is not None:
            read_inference(path)
        return path

    @field_validator("store_url")
    @classmethod
    def _store_url_can_be_opened(cls, url: str) -> str:
        return check_url(url) if url else url
