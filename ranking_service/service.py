"""The ranking service as the runtime sees it: its parts, their start and their end."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import grpc

from ranking_service.bundles.bundle_store import BundleStore
from ranking_service.clients import EncoderClient, RetrievalClient
from ranking_service.intents.classification_cache import ClassificationCache
from ranking_service.intents.intent_reader import IntentReader
from ranking_service.intents.intents_file import read_intents
from ranking_service.scorers.scorer import BuiltinScorer
from ranking_service.scorers.source_weights import source_weights
from ranking_service.scraped_metrics import ranking_gauges
from ranking_service.served_lists.served_list_log import ServedListLog
from ranking_service.served_lists.served_list_store import served_list_store
from ranking_service.servicer import RankingServicer
from ranking_service.serving import Serving, build_serving
from ranking_service.settings import RankingSettings
from ranking_service.users.user_side import UserSide
from ranking_service.vector_cache import TextVectorCache
from service_runtime.admission import Door, usable_cores
from service_runtime.channels import open_channel
from service_runtime.errors import NotFound
from service_runtime.folder_lock import PREDECESSOR_S, FolderLock
from service_runtime.signed_token import TokenSigner, load_or_create_key
from service_runtime.telemetry import get_logger
from zhiyin.ranking.v1.ranking_service_pb2_grpc import add_RankingServiceServicer_to_server

# Threads for arithmetic. It holds the GIL most of the time: two keep the event loop free, more would not be faster.
_RANKING_THREADS = 2
# Enough to keep those threads busy while another waits for retrieval. More were no faster, and at four times the load
# they kept the event loop from taking in calls: these waited in gRPC, unseen by the door, until none was in time.
_LISTS_BEYOND_CORES = 2
# Several writes share one commit. More at once were no faster in `python -m benchmarks run overload`.
_WRITES_AT_ONCE = 8

log = get_logger(__name__)


class RankingService:
    """Users, events and the recommendation behind one port."""

    name = "ranking"
    full_name = "zhiyin.ranking.v1.RankingService"

    def __init__(self, settings: RankingSettings) -> None:
        self._settings = settings
        self._intents = read_intents(settings.intents_file) if settings.intents_file is not None else None
        key = load_or_create_key(settings.token_key_file or settings.data_dir / "token.key")
        self._signer = TokenSigner(key)
        self._lock = FolderLock(settings.data_dir)
        self._executor = ThreadPoolExecutor(_RANKING_THREADS, thread_name_prefix="ranking")
        self._user_side = UserSide.open(
            settings.data_dir, settings.user_side(), self._signer, self._catalog_exists, _stop_process
        )
        self._lists_door = Door(
            "the room for lists", settings.lists_at_once or usable_cores() + _LISTS_BEYOND_CORES, settings.max_wait_s
        )
        self._gauges = ranking_gauges(self._user_side, settings.data_dir)
        self._channels: list[grpc.aio.Channel] = []
        self._serving: Serving | None = None
        self._reader: IntentReader | None = None
        self._warming: asyncio.Task[None] | None = None

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the servicer. Channels connect when first used, so the other services may start later."""
        settings = self._settings
        texts = TextVectorCache(settings.text_cache_entries)
        encoder = EncoderClient(
            self._channel(settings.encoder_address),
            texts,
            ClassificationCache(settings.text_cache_entries),
            settings.encoder_timeout_s,
            settings.encoder_reserve_s,
            self._lists_door,
        )
        self._retrieval = RetrievalClient(self._channel(settings.retrieval_address), settings.retrieval_timeout_s)
        bundles = BundleStore(settings.bundles_dir or settings.data_dir / "bundles", BuiltinScorer(source_weights))
        reader = IntentReader(self._intents, encoder) if self._intents is not None else None
        self._serving = build_serving(
            settings,
            self._user_side.reader,
            self._user_side.statistics,
            encoder,
            self._retrieval,
            self._signer,
            self._executor,
            bundles.serving,
            self._user_side.rules.books.of,
            reader,
        )
        self._reader = reader
        self._served_lists = ServedListLog(
            served_list_store(settings.data_dir, settings.store_url),
            self._serving.lists.explained,
            settings.log_bounds(),
        )
        self._user_side.on_erased = self._served_lists.forget_keys
        add_RankingServiceServicer_to_server(
            RankingServicer(self._user_side, self._serving, bundles, self._retrieval, self._served_lists, settings),
            server,
        )

    async def start(self) -> None:
        """Opens the user store and loads the statistics."""
        await asyncio.to_thread(self._lock.take, PREDECESSOR_S)
        await self._user_side.start()
        self._gauges.open()
        self._served_lists.start()
        if self._reader is not None:
            self._warming = asyncio.create_task(self._reader.warm())

    def readiness(self) -> str | None:
        """From the user side only: another service that is down degrades lists, it does not eject this one."""
        return self._user_side.readiness()

    def doors(self) -> Mapping[str, Door]:
        """One for what makes lists, one for what is written."""
        writes = Door("the room for writes", _WRITES_AT_ONCE, self._settings.max_wait_s)
        return {
            **{
                f"/{self.full_name}/{method}": self._lists_door
                for method in ("Recommend", "SimilarItems", "Rerank", "Explain")
            },
            **{f"/{self.full_name}/{method}": writes for method in ("RecordEvents", "UpsertUsers")},
        }

    async def close(self) -> None:
        """Ends background work, flushes users and events, closes the channels."""
        self._gauges.close()
        if self._warming is not None:
            self._warming.cancel()
        if self._serving is not None:
            await self._serving.scout.close()
            await self._served_lists.close()
        await self._user_side.close()
        self._lock.release()
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
