"""Settings of the ranking service: flags, environment `ZHIYIN_RANKING_*`, file."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, field_validator

from ranking_service.intents.intents_file import read_intents
from ranking_service.served_lists.log_bounds import LogBounds
from ranking_service.users.user_side import UserSideSettings
from service_runtime.settings import ServerSettings, service_settings_config
from service_runtime.sql import check_url


class RankingSettings(ServerSettings):
    """Everything that can be set."""

    model_config = service_settings_config("RANKING")

    port: int = Field(50053, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    data_dir: Path = Field(Path("data/ranking"), description="Folder of the user store, statistics and token key.")
    retrieval_address: str = Field("127.0.0.1:50052", description="host:port of the retrieval service.")
    encoder_address: str = Field("127.0.0.1:50051", description="host:port of the encoder service.")
    dependency_tls_ca_file: Path | None = Field(
        None, description="PEM certificates that sign the two services; set: TLS."
    )
    dependency_tls_cert_file: Path | None = Field(
        None, description="PEM client certificate for the two services (mTLS)."
    )
    dependency_tls_key_file: Path | None = Field(None, description="PEM key of that certificate.")
    token_key_file: Path | None = Field(
        None,
        description="Key that signs all tokens; replicas share it. Unset: made in data_dir.",
    )

    bundles_dir: Path | None = Field(
        None, description="Folder of the model bundles; replicas share it. Unset: `bundles` in data_dir."
    )

    intents_file: Path | None = Field(
        None, description="YAML file of what users may be up to and what that does to lists (docs/intents.md)."
    )

    encoder_timeout_s: float = Field(1.0, gt=0, le=60, description="Longest wait for the encoder, in seconds.")
    retrieval_timeout_s: float = Field(
        3.0, gt=0, le=60, description="Longest wait for a call to retrieval, in seconds."
    )
    encoder_reserve_s: float = Field(
        0.1,
        ge=0,
        le=10,
        description="Seconds of the deadline kept for the rest of a list; the encoder is skipped below it.",
    )
    required_sources: list[Literal["query", "profile", "history", "transition", "popular", "fresh", "catalog"]] = Field(
        [], description="Sources without which a request fails instead of being answered with `degraded`."
    )

    query_candidates: int = Field(150, ge=1, le=1000, description="Candidates of the query source.")
    profile_candidates: int = Field(100, ge=1, le=1000, description="Candidates of the profile source.")
    history_candidates: int = Field(
        150, ge=1, le=1000, description="Candidates of the history source, all interests together."
    )
    transition_candidates: int = Field(100, ge=1, le=1000, description="Candidates of the transition source.")
    sequence_candidates: int = Field(
        150, ge=1, le=1000, description="Candidates of the sequence model, where a bundle brings one."
    )
    collaborative_candidates: int = Field(
        100, ge=1, le=1000, description="Candidates of the item-to-item table, where a bundle brings one."
    )
    neighbours_candidates: int = Field(
        60, ge=1, le=1000, description="Candidates from the most similar users, where a bundle asks for them."
    )
    factors_candidates: int = Field(
        60, ge=1, le=1000, description="Candidates of the factorisation, where a bundle brings one."
    )
    community_candidates: int = Field(
        40, ge=1, le=1000, description="Candidates of communities, where a bundle brings them, and of followed users."
    )
    popular_candidates: int = Field(
        60, ge=1, le=1000, description="Candidates of popularity; thrice for unknown users."
    )
    fresh_candidates: int = Field(30, ge=1, le=1000, description="Candidates of the fresh source.")
    catalog_candidates: int = Field(
        200, ge=1, le=1000, description="Candidates from the whole catalogue, for unknown users."
    )
    exploration_candidates: int = Field(
        64, ge=1, le=1000, description="Items drawn for exploration slots, when asked for."
    )
    fresh_window_days: float = Field(30.0, gt=0, le=3650, description="Age in days up to which an item counts as new.")
    catalog_refresh_s: float = Field(
        3.0, ge=0.1, le=3600, description="Seconds after which the newest items of a catalogue in use are read again."
    )
    max_candidates: int = Field(200, ge=10, le=1000, description="Best candidates that are ordered for diversity.")
    max_list_length: int = Field(200, ge=1, le=1000, description="Items of a list over all its pages.")

    lists_at_once: int = Field(0, ge=0, le=1024, description="Lists made at once; 0: two more than cores.")
    list_store_bytes: int = Field(128 << 20, ge=0, description="Memory for lists whose next pages may be asked for.")
    list_lifetime_s: float = Field(900.0, gt=0, le=86_400, description="Seconds that a list is kept for its next page.")
    served_lists_days: float = Field(
        7.0,
        ge=0,
        le=3650,
        description="Days that lists served to users are kept for Explain, in a database beside the user store; 0: "
        "none is, and what was kept is deleted.",
    )
    served_lists_bytes: int = Field(1 << 30, ge=1 << 20, description="Bytes of these; beyond, the oldest go.")
    served_lists_memory_bytes: int = Field(
        32 << 20, ge=0, description="Memory for the lists of the last list_lifetime_s, all of them, for Explain."
    )
    served_lists_queue_bytes: int = Field(
        64 << 20, ge=0, description="Memory of lists that wait to be written down; beyond, they are not."
    )
    text_cache_entries: int = Field(20_000, ge=1, description="Text vectors kept (1.5 KB each at 384 dimensions).")
    item_cache_entries: int = Field(
        50_000, ge=1, description="Items of histories kept (1.6 KB each at 384 dimensions)."
    )
    item_cache_age_s: float = Field(
        60.0, gt=0, le=86_400, description="Seconds after which such an item is read again."
    )

    store_url: str = Field(
        "",
        repr=False,
        description="URL of the user store's database, such as postgresql+psycopg://zhiyin@db/users; empty: a SQLite "
        "file in data_dir. A password goes into the variable or the file: flags are visible to everybody.",
    )
    max_events_per_batch: int = Field(1_000, ge=1, le=10_000, description="Events in one request or stream batch.")
    max_users_per_batch: int = Field(1_000, ge=1, le=10_000, description="Users in one request.")
    # A Search has room for 256 labels, one for each filter.
    max_rules: int = Field(200, ge=0, le=256, description="Rules of one catalogue.")
    max_queued_bytes: int = Field(64 << 20, ge=1 << 20, description="Bytes of requests that may wait for the writer.")
    max_recent_interactions: int = Field(
        200, ge=1, le=10_000, description="Interactions of a user that a list looks at."
    )
    user_cache_interactions: int = Field(
        500_000, ge=1_000, description="Interactions and seen items in the user cache."
    )
    popularity_half_life_days: float = Field(30.0, gt=0, le=3650, description="Days after which an event counts half.")
    snapshot_every_events: int = Field(50_000, ge=100, description="Events after which the statistics are saved.")
    tail_interval_s: float | None = Field(
        None,
        ge=0,
        le=60,
        description="Seconds between looks for what other replicas wrote; 0: none. Unset: 0.5 on PostgreSQL, 0 on "
        "SQLite, which has one replica.",
    )
    token_wait_s: float = Field(
        2.0, ge=0, le=60, description="Longest wait for a store behind a consistency token, in seconds."
    )

    @field_validator("store_url")
    @classmethod
    def _store_url_can_be_opened(cls, url: str) -> str:
        return check_url(url) if url else url

    @field_validator("intents_file")
    @classmethod
    def _intents_file_is_right(cls, path: Path | None) -> Path | None:
        if path is not None:
            read_intents(path)
        return path

    def log_bounds(self) -> LogBounds:
        """The part of served lists."""
        return LogBounds(
            queue_bytes=self.served_lists_queue_bytes,
            memory_bytes=self.served_lists_memory_bytes,
            memory_s=self.list_lifetime_s,
            store_s=self.served_lists_days * 86_400.0,
            store_bytes=self.served_lists_bytes,
        )

    def user_side(self) -> UserSideSettings:
        """The part of users, events and statistics."""
        return UserSideSettings(
            store_url=self.store_url,
            max_events_per_batch=self.max_events_per_batch,
            max_users_per_batch=self.max_users_per_batch,
            max_queued_bytes=self.max_queued_bytes,
            max_recent_interactions=self.max_recent_interactions,
            user_cache_interactions=self.user_cache_interactions,
            popularity_half_life_s=self.popularity_half_life_days * 86_400.0,
            snapshot_every_events=self.snapshot_every_events,
            tail_interval_s=self.tail_interval_s,
            token_wait_s=self.token_wait_s,
        )
