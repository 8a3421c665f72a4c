"""Puts the ranking service together."""

from __future__ import annotations

import os
import signal
from concurrent.futures import ThreadPoolExecutor

import grpc

from ranking_service.candidate import SourceKind
from ranking_service.catalog_scout import CatalogScout
from ranking_service.clients import EncoderClient, RetrievalClient
from ranking_service.list_store import ListStore
from ranking_service.lists import ListServer
from ranking_service.pipeline import ListLimits, Recommender, Understands, Weights
from ranking_service.rerank import Reranker
from ranking_service.rpcs_recommend import Serving
from ranking_service.scorers.source_weights import source_weights
from ranking_service.servicer import RankingServicer
from ranking_service.settings import RankingSettings
from ranking_service.shelf import ShelfUnderstanding, shelf_weights
from ranking_service.sources.catalog import CatalogSource
from ranking_service.sources.exploration import ExplorationSource
from ranking_service.sources.fresh import FreshSource
from ranking_service.sources.history import HistorySource
from ranking_service.sources.popular import PopularSource
from ranking_service.sources.profile import ProfileSource
from ranking_service.sources.query import QuerySource
from ranking_service.sources.similar import SimilarSource
from ranking_service.sources.source import Source
from ranking_service.sources.transition import TransitionSource
from ranking_service.understanding import Understanding
from ranking_service.user_side import UserSide
from ranking_service.user_state import Statistics
from ranking_service.vector_cache import ItemCache, TextVectorCache
from service_runtime.channels import open_channel
from service_runtime.errors import NotFound
from service_runtime.signed_token import TokenSigner, load_or_create_key
from service_runtime.telemetry import get_logger
from zhiyin.ranking.v1.ranking_service_pb2_grpc import add_RankingServiceServicer_to_server

# Threads for arithmetic. It holds the GIL most of the time: two keep the event loop free, more would not be faster.
_RANKING_THREADS = 2

log = get_logger(__name__)


class RankingService:
    """Users, events and the recommendation behind one port."""

    name = "ranking"
    full_name = "zhiyin.ranking.v1.RankingService"

    def __init__(self, settings: RankingSettings) -> None:
        self._settings = settings
        key = load_or_create_key(settings.token_key_file or settings.data_dir / "token.key")
        self._signer = TokenSigner(key)
        self._executor = ThreadPoolExecutor(_RANKING_THREADS, thread_name_prefix="ranking")
        self._user_side = UserSide.open(
            settings.data_dir, settings.user_side(), self._signer, self._catalog_exists, _stop_process
        )
        self._channels: list[grpc.aio.Channel] = []
        self._scout: CatalogScout | None = None

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the servicer. Channels connect when first used, so the other services may start later."""
        settings = self._settings
        self._retrieval = RetrievalClient(self._channel(settings.retrieval_address), settings.retrieval_timeout_s)
        texts = TextVectorCache(settings.text_cache_entries)
        encoder = EncoderClient(
            self._channel(settings.encoder_address), texts, settings.encoder_timeout_s, settings.encoder_reserve_s
        )
        self._scout = CatalogScout(self._retrieval, settings.catalog_refresh_s)
        items = ItemCache(settings.item_cache_entries, settings.item_cache_age_s)
        users, statistics = self._user_side.reader, self._user_side.statistics
        understanding = Understanding(users, encoder, self._retrieval, items, self._scout)
        limits = ListLimits(settings.max_candidates, settings.max_list_length)
        required = frozenset(SourceKind[name.upper()] for name in settings.required_sources)
        store = ListStore(settings.list_store_bytes, settings.list_lifetime_s)

        def recommender(
            who: Understands, sources: list[Source], weights: Weights, needed: frozenset[SourceKind]
        ) -> Recommender:
            return Recommender(
                who, sources, weights, needed, encoder, self._retrieval, statistics, limits, self._executor
            )

        def lists(of: Recommender) -> ListServer:
            return ListServer(of, store, users, self._retrieval, statistics, self._signer, self._executor)

        main = recommender(understanding, _sources(settings, statistics), source_weights, required)
        shelf_sources: list[Source] = [
            SimilarSource(settings.history_candidates),
            TransitionSource(statistics, settings.transition_candidates),
        ]
        shelf = recommender(ShelfUnderstanding(understanding), shelf_sources, shelf_weights, frozenset())
        reranker = Reranker(main, understanding, self._retrieval, self._executor)
        serving = Serving(lists(main), lists(shelf), reranker, self._signer)
        add_RankingServiceServicer_to_server(RankingServicer(self._user_side, serving, settings), server)

    async def start(self) -> None:
        """Opens the user store and loads the statistics."""
        await self._user_side.start()

    def readiness(self) -> str | None:
        """From the user side only: another service that is down degrades lists, it does not eject this one."""
        return self._user_side.readiness()

    async def close(self) -> None:
        """Ends background work, flushes users and events, closes the channels."""
        if self._scout is not None:
            await self._scout.close()
        await self._user_side.close()
        for channel in self._channels:
            await channel.close()
        self._executor.shutdown()

    def _channel(self, address: str) -> grpc.aio.Channel:
        settings = self._settings
        channel = open_channel(
            address,
            tls_ca_file=settings.dependency_tls_ca_file,
            tls_cert_file=settings.dependency_tls_cert_file,
            tls_key_file=settings.dependency_tls_key_file,
        )
        self._channels.append(channel)
        return channel

    async def _catalog_exists(self, catalog: str) -> bool:
        try:
            await self._retrieval.get_catalog(catalog)
        except NotFound:
            return False
        return True


def _stop_process(error: BaseException) -> None:
    """Memory and store disagree: the process ends, and the next one replays the store."""
    log.error("user_writer_failed", error=type(error).__name__)
    os.kill(os.getpid(), signal.SIGTERM)


def _sources(settings: RankingSettings, statistics: Statistics) -> list[Source]:
    """Every source of a list. A new one is a file in `sources/` and a line here."""
    return [
        QuerySource(settings.query_candidates),
        ProfileSource(settings.profile_candidates),
        HistorySource(settings.history_candidates),
        TransitionSource(statistics, settings.transition_candidates),
        PopularSource(statistics, settings.popular_candidates),
        FreshSource(settings.fresh_candidates, settings.fresh_window_days * 86_400.0),
        CatalogSource(settings.catalog_candidates),
        ExplorationSource(settings.exploration_candidates),
    ]
