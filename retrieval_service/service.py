"""Puts the retrieval service together and runs its life: load, serve, flush."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

import grpc

from retrieval_service import conversions, metrics, responses
from retrieval_service.catalog_registry import DEFAULT_CATALOG, CatalogRegistry, CatalogState
from retrieval_service.catalog_writer import CatalogWriter
from retrieval_service.directory import Directory, ItemChange
from retrieval_service.encoder_client import EncoderClient
from retrieval_service.index_host import IndexHost
from retrieval_service.index_maintenance import IndexMaintenance, MaintenanceSettings
from retrieval_service.inference.inference_file import read_inference
from retrieval_service.inference.inferred_attribute import NO_INFERENCE
from retrieval_service.item_cache import ItemCache
from retrieval_service.item_store import CatalogRow, ItemStore
from retrieval_service.item_writes import ItemWrites
from retrieval_service.named_spaces import IndexKey
from retrieval_service.scraped_metrics import retrieval_gauges
from retrieval_service.search import Searcher
from retrieval_service.servicer import RetrievalServicer
from retrieval_service.serving import Serving
from retrieval_service.settings import RetrievalSettings
from retrieval_service.space_writer import SpaceWriter
from retrieval_service.space_writes import SpaceWrites
from retrieval_service.store_schema import store_facts
from retrieval_service.vector_rows import Connection
from retrieval_service.write_messages import Committed
from service_runtime.admission import Door, usable_cores
from service_runtime.channels import open_channel
from service_runtime.durable_files import make_folder
from service_runtime.errors import ZhiyinError
from service_runtime.folder_lock import PREDECESSOR_S, FolderLock
from service_runtime.signed_token import TokenSigner, load_or_create_key
from service_runtime.sql import is_sqlite, sqlite_url, when_available, writing
from service_runtime.sql_writer import SqlWriter
from service_runtime.telemetry import get_logger
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as pb_grpc

_log = get_logger(__name__)
_LOAD_PAGE = 2000
# More at once were no faster in `python -m benchmarks run overload`.
_WRITES_AT_ONCE = 8
_LOCK_CHECK_S = 2.0


class RetrievalService:
    """The catalogue of items and the search over it, as `service_runtime.server.Service`.

    Args:
        settings: Read once, in `__main__`.
        end_process: What to do when store and memory disagree for good; a restart replays the store.
    """

    name = "retrieval"
    full_name = "zhiyin.retrieval.v1.RetrievalService"

    def __init__(
        self,
        settings: RetrievalSettings,
        end_process: Callable[[], None] = lambda: os.kill(os.getpid(), signal.SIGTERM),
    ) -> None:
        self._settings, self._end_process = settings, end_process
        inferred = settings.inferred_attributes_file
        self._inferences = read_inference(inferred) if inferred is not None else NO_INFERENCE
        make_folder(settings.data_dir)
        self.store = ItemStore(settings.store_url or sqlite_url(settings.data_dir / "items.sqlite3"))
        self.host = IndexHost(self.store, settings.data_dir / "snapshots", on_fatal=self._on_fatal)
        self._maintenance = IndexMaintenance(
            self.host,
            self.store.url,
            MaintenanceSettings(
                graph_min_vectors=settings.graph_min_vectors,
                rebuild_above=settings.rebuild_above,
                snapshot_every_writes=settings.snapshot_every_writes,
                snapshot_every_s=settings.snapshot_every_s,
                snapshot_at_close_s=settings.snapshot_at_close_s,
            ),
            self._on_snapshot,
        )
        self._registry = CatalogRegistry()
        self._cache = ItemCache(settings.item_cache_bytes)
        self._threads = ThreadPoolExecutor(settings.search_threads, thread_name_prefix="retrieval")
        self._failure: str | None = "the retrieval service is starting"
        self.failed = False
        """Whether the process ends because store and index disagree, not because it was told to."""
        self._lock = FolderLock(settings.data_dir)
        # Each thread beyond the cores keeps the event loop from taking in calls, which then wait in gRPC, unseen by the
        # door, until none is in time any more.
        searches = settings.searches_at_once or min(usable_cores(), settings.search_threads)
        self._search_door = Door("the room for searches", searches, settings.max_wait_s)
        self._gauges = retrieval_gauges(self.store, self._registry, self.host, settings.data_dir)
        self._servicer = RetrievalServicer()
        self._writer: SqlWriter[Committed] | None = None
        self._encoder: EncoderClient | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._lock_watch: asyncio.Task[None] | None = None

    def register(self, server: grpc.aio.Server) -> None:
        """Adds the servicer."""
        pb_grpc.add_RetrievalServiceServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        """Loads directory and indexes from the store, then takes writes."""
        self._loop = asyncio.get_running_loop()
        settings = self._settings
        await asyncio.to_thread(self._lock.take, PREDECESSOR_S)
        await when_available(self._load)
        self._encoder = EncoderClient(
            open_channel(
                settings.encoder_address,
                tls_ca_file=settings.encoder_tls_ca_file,
                tls_cert_file=settings.encoder_tls_cert_file,
                tls_key_file=settings.encoder_tls_key_file,
            ),
            settings.encoder_timeout_s,
            settings.encoder_stall_s,
        )
        writes = ItemWrites(
            self.store,
            conversions.item_from_payload,
            conversions.item_to_payload,
            settings.max_items_per_catalog,
            settings.max_catalogs,
            self._inferences,
        )
        catalog_writer = CatalogWriter(
            self.store, writes, self._registry, self.host, self._encoder, self._cache, self._threads
        )
        self._catalog_writer = catalog_writer
        self._writer = SqlWriter(
            self.store.engine,
            apply=catalog_writer.apply,
            name="retrieval",
            max_queued_bytes=settings.max_queued_bytes,
            facts=store_facts,
            on_fatal=self._on_fatal,
        )
        catalog_writer.use(self._writer)
        space_writes = SpaceWrites(self.store, writes.follower, settings.max_space_versions)
        self._writer.start()
        metrics.QUEUED_WRITES.set_function(lambda: self._writer.queued if self._writer else 0)
        metrics.QUEUED_BYTES.set_function(lambda: self._writer.queued_bytes if self._writer else 0)
        key = await asyncio.to_thread(load_or_create_key, settings.data_dir / "token.key")
        self._maintenance.start()
        self._gauges.open()
        self._servicer.serve(
            Serving(
                settings=settings,
                registry=self._registry,
                store=self.store,
                host=self.host,
                searcher=Searcher(self.store, self.host, responses.item_entry),
                writer=catalog_writer,
                spaces=SpaceWriter(self.store, space_writes, catalog_writer, self._registry, self.host),
                encoder=self._encoder,
                tokens=TokenSigner(key),
                queue=self._writer,
                threads=self._threads,
                search_door=self._search_door,
            )
        )
        self._failure = None
        if not is_sqlite(self.store.url):
            self._lock_watch = asyncio.create_task(self._keep_the_lock())

    def readiness(self) -> str | None:
        """Why the service cannot serve; None when it can. The encoder's state does not count."""
        return self._failure or self.host.readiness()

    def doors(self) -> Mapping[str, Door]:
        """One for searches, one for writes that need the encoder: deletes do not wait for them."""
        writes = Door("the room for writes", _WRITES_AT_ONCE, self._settings.max_wait_s)
        return {f"/{self.full_name}/Search": self._search_door, f"/{self.full_name}/UpsertItems": writes}

    async def close(self) -> None:
        """Finishes waiting writes, makes snapshots, ends the worker."""
        self._gauges.close()
        if self._lock_watch is not None:
            self._lock_watch.cancel()
        if self._writer is not None:
            await self._writer.close()
        await asyncio.to_thread(self._maintenance.close)
        await asyncio.to_thread(self.host.close)
        if self._encoder is not None:
            await self._encoder.close()
        self._threads.shutdown(wait=False, cancel_futures=True)
        self.store.close()
        self._lock.release()

    # ---- loading

    def _load(self) -> None:
        self.store.create_tables()
        with writing(self.store.engine) as connection:
            rows = self.store.catalogs(connection)
            if not any(row.name == DEFAULT_CATALOG for row in rows):
                rows.append(self.store.create_catalog(connection, DEFAULT_CATALOG, ""))
        with self.store.reading() as connection:
            for row in rows:
                self._registry.put(self._load_catalog(connection, row))
        self.host.start([key for state in self._registry for key in _index_keys(state)])

    def _load_catalog(self, connection: Connection, row: CatalogRow) -> CatalogState:
        """Fills a directory from the store, as if every item had been written just now."""
        directory = Directory(row.catalog_id, self._cache)
        kinds = self.store.attribute_kinds(connection, row.catalog_id)
        after = ""
        while page := self.store.items_after(connection, row.catalog_id, after, _LOAD_PAGE):
            after = page[-1].item_id
            directory.load(
                [ItemChange(r.number, None, conversions.item_from_payload(r.payload), r.payload) for r in page]
            )
        directory.apply(self.store.sequence(connection, row.catalog_id), (), kinds)
        _log.info("catalog_loaded", catalog=row.name, items=len(directory), sequence=directory.sequence)
        space = self.store.space(connection, row.catalog_id)
        return CatalogState(row, directory, space, self.store.named_spaces(connection, row.catalog_id))

    async def _keep_the_lock(self) -> None:
        """Has the writer look after its connection: one that lost its lock finds out although nobody writes here."""
        assert self._writer is not None
        while True:
            await asyncio.sleep(_LOCK_CHECK_S)
            with contextlib.suppress(ZhiyinError):  # the database is away, or the writer has ended and told of it
                await self._writer.submit(lambda connection: None, 0)

    # ---- called from other threads

    def _on_fatal(self, error: BaseException) -> None:
        self.failed = True
        self._failure = "store and index disagree; the process ends and its successor replays the store"
        _log.critical("retrieval_failed", error=repr(error))
        self._end_process()

    def _on_snapshot(self, catalog_id: int, sequence: int) -> None:
        if self._loop is None or self._loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._forget_deletions(catalog_id, sequence), self._loop)

    async def _forget_deletions(self, catalog_id: int, sequence: int) -> None:
        try:
            await self._catalog_writer.forget_deletions(catalog_id, sequence)
        except ZhiyinError as error:  # the writer is closing or the queue is full: the next snapshot does it
            _log.info("deletion_marks_kept", reason=error.reason)


def _index_keys(state: CatalogState) -> list[IndexKey]:
    catalog_id = state.row.catalog_id
    return [IndexKey(catalog_id), *(IndexKey(catalog_id, space.space, space.version) for space in state.spaces)]
