"""The RPCs that write, read and list items."""

from __future__ import annotations

import asyncio
import hashlib
import heapq
from collections.abc import AsyncIterator

from retrieval_service import conversions, requests, responses
from retrieval_service.catalog_writer import PreparedUpsert
from retrieval_service.item_store import ItemRow
from retrieval_service.serving import Serving
from service_runtime.errors import ZhiyinError, to_batch_error
from service_runtime.grpc_types import ServicerContext
from service_runtime.validation import Violations
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb

# Batches of an import that may be read before the oldest is acknowledged: one commits while the next is encoded.
_IMPORT_AHEAD = 2


class ItemRpcs:
    """The part of the servicer that is about items."""

    _serving: Serving

    async def UpsertItems(self, request: pb.UpsertItemsRequest, context: ServicerContext) -> pb.UpsertItemsResponse:
        """Writes a batch of items."""
        max_items = self._serving.settings.max_items_per_batch
        batch = await self._serving.in_thread(
            lambda: requests.read_upsert(request.catalog, request.items, max_items, request)
        )
        prepared = await self._serving.writer.prepare(batch)
        if prepared.plan.replay is not None:
            return responses.upsert_response(prepared.plan.replay)
        if request.validate_only:
            return responses.upsert_response(prepared.plan.expected())
        return responses.upsert_response(await self._serving.writer.commit(prepared))

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
                    try:
                        await ahead.put((request.batch_number, task))
                    except asyncio.CancelledError:
                        _drop(task)
                        raise
            finally:
                await ahead.put(None)

        reader = asyncio.create_task(read())
        try:
            while (entry := await ahead.get()) is not None:
                number, preparing = entry
                response = pb.ImportItemsResponse(batch_number=number)
                try:
                    outcome = await self._serving.writer.commit(await preparing)
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
                    _drop(entry[1])

    async def _prepare_import(self, catalog: str, request: pb.ImportItemsRequest) -> PreparedUpsert:
        max_items = self._serving.settings.max_items_per_batch
        batch = await self._serving.in_thread(lambda: requests.read_upsert(catalog, request.items, max_items, request))
        return await self._serving.writer.prepare(batch)

    async def DeleteItems(self, request: pb.DeleteItemsRequest, context: ServicerContext) -> pb.DeleteItemsResponse:
        """Deletes items."""
        max_items = self._serving.settings.max_items_per_batch
        outcome = await self._serving.writer.delete(
            await self._serving.in_thread(lambda: requests.read_delete(request, max_items))
        )
        return pb.DeleteItemsResponse(
            sequence=outcome.sequence, deleted_count=outcome.deleted, missing_item_ids=outcome.missing
        )

    async def GetItems(self, request: pb.GetItemsRequest, context: ServicerContext) -> pb.GetItemsResponse:
        """Reads items by id."""

        def read() -> pb.GetItemsResponse:
            violations = Violations()
            violations.check_catalog("catalog", request.catalog)
            ids = requests.read_ids(violations, "item_ids", request.item_ids, 1, requests.MAX_GET)
            hidden = requests.read_mask(violations, request)
            violations.raise_if_any()
            state = self._serving.registry.get(request.catalog)
            with self._serving.store.reading() as connection:
                rows = self._serving.store.items(connection, state.row.catalog_id, list(dict.fromkeys(ids)))
            response = pb.GetItemsResponse(missing_item_ids=[i for i in ids if i not in rows])
            for item_id in ids:
                if item_id in rows:
                    conversions.fill_item(response.items.add(), rows[item_id].payload, hidden)
            return responses.within_limit(response, "item_ids")

        return await self._serving.in_thread(read)

    async def ListItems(self, request: pb.ListItemsRequest, context: ServicerContext) -> pb.ListItemsResponse:
        """Lists items in the order of their ids."""

        def read() -> pb.ListItemsResponse:
            violations = Violations()
            violations.check_catalog("catalog", request.catalog)
            size = requests.read_page_size(violations, request.page_size)
            condition = requests.read_filter(violations, "filter", request)
            hidden = requests.read_mask(violations, request)
            violations.raise_if_any()
            state = self._serving.registry.get(request.catalog)
            catalog_id = state.row.catalog_id
            # A token is good for this catalogue and this filter only.
            scope = hashlib.blake2b(request.filter.SerializeToString(deterministic=True), digest_size=8).hexdigest()
            after = self._serving.page_start(request.page_token, "items", {"catalog": catalog_id, "filter": scope})
            rows: list[ItemRow]
            if condition is None:
                with self._serving.store.reading() as connection:
                    rows = self._serving.store.items_after(connection, catalog_id, after, size + 1)
            else:
                matching = (item_id for item_id in state.directory.matching_ids(condition) if item_id > after)
                ids = heapq.nsmallest(size + 1, matching)
                with self._serving.store.reading() as connection:
                    found = self._serving.store.items(connection, catalog_id, ids)
                rows = [found[item_id] for item_id in ids if item_id in found]
            response = pb.ListItemsResponse()
            total = 0
            for row in rows[:size]:
                total += len(row.payload) + 8
                if response.items and total > responses.MAX_REPLY_BYTES:
                    break
                conversions.fill_item(response.items.add(), row.payload, hidden)
            taken = len(response.items)
            if taken < len(rows):
                last = rows[taken - 1].item_id
                payload = {"catalog": catalog_id, "filter": scope, "after": last}
                response.next_page_token = self._serving.tokens.sign("items", payload)
            return response

        return await self._serving.in_thread(read)


def _drop(task: asyncio.Task[PreparedUpsert]) -> None:
    """Ends a batch that nobody waits for any more; its outcome is taken, so that it is not logged as lost."""
    task.cancel()
    task.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
