"""The RPCs of RetrievalService: read the request, let the domain work, write the response. Errors are raised."""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import heapq
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor
from typing import Any, TypeVar

from retrieval_service import conversions, requests, responses
from retrieval_service.catalog_registry import CatalogRegistry, CatalogState
from retrieval_service.catalog_writer import CatalogWriter, PreparedUpsert
from retrieval_service.encoder_client import TextEncoder
from retrieval_service.index_host import IndexHost
from retrieval_service.item_store import SEMANTIC, ItemRow, ItemStore
from retrieval_service.search import Searcher, SearchInput
from retrieval_service.settings import RetrievalSettings
from service_runtime import request_context
from service_runtime.errors import (
    InvalidRequest,
    NotImplementedYet,
    NotReady,
    Violation,
    ZhiyinError,
    to_batch_error,
)
from service_runtime.grpc_types import ServicerContext
from service_runtime.signed_token import TokenSigner
from service_runtime.sql_writer import SqlWriter
from service_runtime.validation import Violations
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as pb_grpc

T = TypeVar("T")

_SEQUENCE_POLL_S = 0.005
# Checking more ids than this takes longer than a trip to a thread.
_IDS_CHECKED_INLINE = 128
# Batches of an import that may be read before the oldest is acknowledged: one commits while the next is encoded.
_IMPORT_AHEAD = 2


class RetrievalServicer(pb_grpc.RetrievalServiceServicer):
    """Serves once `serve` has been called; the runtime refuses calls before."""

    def __init__(
        self,
        settings: RetrievalSettings,
        registry: CatalogRegistry,
        store: ItemStore,
        host: IndexHost,
        threads: Executor,
    ) -> None:
        self._settings, self._registry, self._store, self._host = settings, registry, store, host
        self._threads = threads

    def serve(
        self,
        searcher: Searcher,
        writer: CatalogWriter,
        encoder: TextEncoder,
        tokens: TokenSigner,
        queue: SqlWriter[Any],
    ) -> None:
        """Takes over what exists only after the store is loaded."""
        self._searcher, self._writer, self._encoder = searcher, writer, encoder
        self._tokens, self._queue = tokens, queue

    # ---- writes

    async def UpsertItems(self, request: pb.UpsertItemsRequest, context: ServicerContext) -> pb.UpsertItemsResponse:
        """Writes a batch of items."""
        max_items = self._settings.max_items_per_batch
        batch = await self._in_thread(lambda: requests.read_upsert(request.catalog, request.items, max_items, request))
        prepared = await self._writer.prepare(batch)
        if prepared.plan.replay is not None:
            return responses.upsert_response(prepared.plan.replay)
        if request.validate_only:
            return responses.upsert_response(prepared.plan.expected())
        return responses.upsert_response(await self._writer.commit(prepared))

    async def ImportItems(
        self, request_iterator: AsyncIterator[pb.ImportItemsRequest], context: ServicerContext
    ) -> AsyncIterator[pb.ImportItemsResponse]:
        """Writes batches in order; the next is encoded while the previous one commits."""
        ahead: asyncio.Queue[tuple[int, asyncio.Task[PreparedUpsert]] | None] = asyncio.Queue(_IMPORT_AHEAD)

        async def read() -> None:
            catalog = ""
            try:
                async for request in request_iterator:
                    catalog = request.catalog or catalog
                    task = asyncio.create_task(self._prepare_import(catalog, request))
                    await ahead.put((request.batch_number, task))
            finally:
                await ahead.put(None)

        reader = asyncio.create_task(read())
        try:
            while (entry := await ahead.get()) is not None:
                number, preparing = entry
                response = pb.ImportItemsResponse(batch_number=number)
                try:
                    outcome = await self._writer.commit(await preparing)
                    response.written.CopyFrom(responses.upsert_response(outcome))
                except ZhiyinError as error:
                    response.error.CopyFrom(to_batch_error(error))
                yield response
            await reader
        finally:
            reader.cancel()
            while not ahead.empty():
                entry = ahead.get_nowait()
                if entry is not None:
                    entry[1].cancel()
                    entry[1].add_done_callback(_forget)

    async def _prepare_import(self, catalog: str, request: pb.ImportItemsRequest) -> PreparedUpsert:
        max_items = self._settings.max_items_per_batch
        batch = await self._in_thread(lambda: requests.read_upsert(catalog, request.items, max_items, request))
        return await self._writer.prepare(batch)

    async def DeleteItems(self, request: pb.DeleteItemsRequest, context: ServicerContext) -> pb.DeleteItemsResponse:
        """Deletes items."""
        max_items = self._settings.max_items_per_batch
        outcome = await self._writer.delete(await self._in_thread(lambda: requests.read_delete(request, max_items)))
        return pb.DeleteItemsResponse(
            sequence=outcome.sequence, deleted_count=outcome.deleted, missing_item_ids=outcome.missing
        )

    # ---- reads

    async def GetItems(self, request: pb.GetItemsRequest, context: ServicerContext) -> pb.GetItemsResponse:
        """Reads items by id."""

        def read() -> pb.GetItemsResponse:
            violations = Violations()
            violations.check_catalog("catalog", request.catalog)
            ids = requests.read_ids(violations, "item_ids", request.item_ids, 1, requests.MAX_GET)
            clear = requests.read_mask(violations, request)
            violations.raise_if_any()
            state = self._registry.get(request.catalog)
            with self._store.reading() as connection:
                rows = self._store.items(connection, state.row.catalog_id, list(dict.fromkeys(ids)))
            response = pb.GetItemsResponse(missing_item_ids=[i for i in ids if i not in rows])
            for item_id in ids:
                if item_id in rows:
                    conversions.fill_item(response.items.add(), rows[item_id].payload, clear)
            return responses.within_limit(response, "item_ids")

        return await self._in_thread(read)

    async def ListItems(self, request: pb.ListItemsRequest, context: ServicerContext) -> pb.ListItemsResponse:
        """Lists items in the order of their ids."""
        violations = Violations()
        violations.check_catalog("catalog", request.catalog)
        size = requests.read_page_size(violations, request.page_size)
        condition = requests.read_filter(violations, "filter", request)
        clear = requests.read_mask(violations, request)
        violations.raise_if_any()
        state = self._registry.get(request.catalog)
        # A token is good for this catalogue and this filter only.
        scope = hashlib.blake2b(request.filter.SerializeToString(deterministic=True), digest_size=8).hexdigest()
        after = self._after(request.page_token, "items", {"catalog": state.row.catalog_id, "filter": scope})

        def read() -> pb.ListItemsResponse:
            catalog_id = state.row.catalog_id
            rows: list[ItemRow]
            if condition is None:
                with self._store.reading() as connection:
                    rows = self._store.items_after(connection, catalog_id, after, size + 1)
            else:
                matching = (item_id for item_id in state.directory.matching_ids(condition) if item_id > after)
                ids = heapq.nsmallest(size + 1, matching)
                with self._store.reading() as connection:
                    found = self._store.items(connection, catalog_id, ids)
                rows = [found[item_id] for item_id in ids if item_id in found]
            response = pb.ListItemsResponse()
            total = 0
            for row in rows[:size]:
                total += len(row.payload) + 8
                if response.items and total > responses.MAX_REPLY_BYTES:
                    break
                conversions.fill_item(response.items.add(), row.payload, clear)
            taken = len(response.items)
            if taken < len(rows):
                last = rows[taken - 1].item_id
                payload = {"catalog": catalog_id, "filter": scope, "after": last}
                response.next_page_token = self._tokens.sign("items", payload)
            return response

        return await self._in_thread(read)

    async def Search(self, request: pb.SearchRequest, context: ServicerContext) -> pb.SearchResponse:
        """Answers several queries over one state."""
        started = time.monotonic()
        if len(request.hydrate_item_ids) + len(request.exclude_item_ids) > _IDS_CHECKED_INLINE:
            plan = await self._in_thread(lambda: requests.read_search(request))
        else:
            plan = requests.read_search(request)
        state = self._registry.get(request.catalog)
        await self._wait_for(state, plan.min_sequence)
        search = await self._encode_texts(plan.search, plan.texts)
        timeout_s = request_context.current().deadline.child_timeout()

        def answer() -> pb.SearchResponse:
            output = self._searcher.run(state, search, timeout_s)
            response = responses.search_response(state, search, output, plan.clear)
            response.search_time.FromNanoseconds(int((time.monotonic() - started) * 1e9))
            return responses.within_limit(response, "read_mask")

        return await self._in_thread(answer)

    async def _wait_for(self, state: CatalogState, sequence: int) -> None:
        deadline = request_context.current().deadline
        while state.directory.sequence < sequence:
            if deadline.remaining() < 0.05:
                raise NotReady(f"the catalogue is at sequence {state.directory.sequence}, {sequence} has not come yet")
            await asyncio.sleep(_SEQUENCE_POLL_S)

    async def _encode_texts(self, search: SearchInput, texts: dict[int, str]) -> SearchInput:
        if not texts:
            return search
        encoded = await self._encoder.queries(list(texts.values()))
        queries = list(search.queries)
        for row, i in enumerate(texts):
            queries[i] = dataclasses.replace(queries[i], vector=encoded.vectors[row], fingerprint=encoded.fingerprint)
        return dataclasses.replace(search, queries=tuple(queries))

    # ---- spaces

    async def CreateSpaceVersion(
        self, request: pb.CreateSpaceVersionRequest, context: ServicerContext
    ) -> pb.CreateSpaceVersionResponse:
        """Not in this release."""
        raise NotImplementedYet("CreateSpaceVersion")

    async def PutVectors(self, request: pb.PutVectorsRequest, context: ServicerContext) -> pb.PutVectorsResponse:
        """Not in this release."""
        raise NotImplementedYet("PutVectors")

    async def PublishSpaceVersion(
        self, request: pb.PublishSpaceVersionRequest, context: ServicerContext
    ) -> pb.PublishSpaceVersionResponse:
        """Not in this release."""
        raise NotImplementedYet("PublishSpaceVersion")

    async def RetireSpaceVersion(
        self, request: pb.RetireSpaceVersionRequest, context: ServicerContext
    ) -> pb.RetireSpaceVersionResponse:
        """Not in this release."""
        raise NotImplementedYet("RetireSpaceVersion")

    async def ListSpaceVersions(
        self, request: pb.ListSpaceVersionsRequest, context: ServicerContext
    ) -> pb.ListSpaceVersionsResponse:
        """Lists the spaces of a catalogue: in this release version 1 of `semantic`."""
        violations = Violations()
        violations.check_catalog("catalog", request.catalog)
        requests.read_page_size(violations, request.page_size)
        violations.raise_if_any()
        state = self._registry.get(request.catalog)
        after = self._after(request.page_token, "space_versions", {"catalog": state.row.catalog_id})
        response = pb.ListSpaceVersionsResponse()
        if after < SEMANTIC:
            version = response.space_versions.add(
                space=SEMANTIC, version=1, metric=pb.METRIC_COSINE, centered=True, published=True
            )
            if state.space is not None:
                version.dimensions = state.space.dimensions
                version.space_fingerprint = state.space.fingerprint
                version.vector_count = state.space.centering.count
        return response

    # ---- catalogues

    async def CreateCatalog(
        self, request: pb.CreateCatalogRequest, context: ServicerContext
    ) -> pb.CreateCatalogResponse:
        """Makes a catalogue."""
        violations = Violations()
        violations.check_catalog("catalog.name", request.catalog.name)
        name = request.catalog.display_name
        violations.check_text("catalog.display_name", name, requests.MAX_DISPLAY_NAME_BYTES)
        violations.raise_if_any()
        row = await self._writer.create_catalog(request.catalog.name, name)
        return pb.CreateCatalogResponse(catalog=responses.catalog(row))

    async def GetCatalog(self, request: pb.GetCatalogRequest, context: ServicerContext) -> pb.GetCatalogResponse:
        """Reads a catalogue's settings."""
        return pb.GetCatalogResponse(catalog=responses.catalog(self._named(request.catalog).row))

    async def ListCatalogs(self, request: pb.ListCatalogsRequest, context: ServicerContext) -> pb.ListCatalogsResponse:
        """Lists catalogues in the order of their names."""
        violations = Violations()
        size = requests.read_page_size(violations, request.page_size)
        violations.raise_if_any()
        after = self._after(request.page_token, "catalogs", {})
        rows = [state.row for state in self._registry if state.row.name > after]
        response = pb.ListCatalogsResponse(catalogs=[responses.catalog(row) for row in rows[:size]])
        if len(rows) > size:
            response.next_page_token = self._tokens.sign("catalogs", {"after": rows[size - 1].name})
        return response

    async def DropCatalog(self, request: pb.DropCatalogRequest, context: ServicerContext) -> pb.DropCatalogResponse:
        """Drops a catalogue for good."""
        self._named(request.catalog)
        return pb.DropCatalogResponse(deleted_item_count=await self._writer.drop_catalog(request.catalog))

    async def GetCatalogStats(
        self, request: pb.GetCatalogStatsRequest, context: ServicerContext
    ) -> pb.GetCatalogStatsResponse:
        """Figures about a catalogue and its index."""
        state = self._named(request.catalog)
        catalog_id = state.row.catalog_id

        def read() -> pb.GetCatalogStatsResponse:
            figures = self._host.figures(catalog_id)
            with self._store.reading() as connection:
                count = self._store.item_count(connection, catalog_id)
                sequence = self._store.sequence(connection, catalog_id)
            response = pb.GetCatalogStatsResponse(
                item_count=count,
                sequence=sequence,
                applied_sequence=state.directory.sequence,
                indexed_count=figures.live,
                tombstone_count=figures.tombstones,
                worker_restarts=self._host.restarts,
                notices=self._host.notices(catalog_id),
                queued_writes=self._queue.queued,
            )
            if figures.snapshot is not None:
                response.snapshot_sequence = figures.snapshot.sequence
                response.snapshot_time.FromNanoseconds(int(figures.snapshot.created_at * 1e9))
            return response

        return await self._in_thread(read)

    async def GetLimits(self, request: pb.GetLimitsRequest, context: ServicerContext) -> pb.GetLimitsResponse:
        """The limits of this server."""
        settings = self._settings
        response = pb.GetLimitsResponse(
            max_items_per_batch=settings.max_items_per_batch,
            max_message_bytes=settings.max_message_bytes,
            max_queued_bytes=settings.max_queued_bytes,
            max_queries_per_search=requests.MAX_QUERIES,
            max_hits_per_query=requests.MAX_HITS,
            max_hydrated_items=requests.MAX_HYDRATED,
            max_items_per_catalog=settings.max_items_per_catalog,
        )
        response.default_deadline.FromNanoseconds(int(settings.default_deadline_s * 1e9))
        return response

    # ---- parts

    def _named(self, name: str) -> CatalogState:
        violations = Violations()
        violations.check_catalog("catalog", name)
        violations.raise_if_any()
        return self._registry.get(name)

    def _after(self, token: str, kind: str, scope: dict[str, Any]) -> str:
        """Where the page before ended; empty: there was none."""
        if not token:
            return ""
        payload = self._tokens.verify(kind, token, "page_token")
        if any(payload.get(name) != value for name, value in scope.items()):
            raise InvalidRequest([Violation("page_token", "is of another catalogue or filter; begin anew")])
        return str(payload["after"])

    async def _in_thread(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._threads, call)


def _forget(task: asyncio.Task[PreparedUpsert]) -> None:
    """Takes the outcome of a batch that nobody waits for any more, so that it is not logged as lost."""
    if not task.cancelled():
        task.exception()
