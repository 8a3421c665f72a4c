"""The RPCs that make, list and drop catalogues and say how they are."""

from __future__ import annotations

from retrieval_service import requests, responses
from retrieval_service.catalog_registry import CatalogState
from retrieval_service.named_spaces import IndexKey
from retrieval_service.serving import Serving
from service_runtime.grpc_types import ServicerContext
from service_runtime.validation import Violations
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb


class CatalogRpcs:
    """The part of the servicer that is about catalogues."""

    _serving: Serving

    async def CreateCatalog(
        self, request: pb.CreateCatalogRequest, context: ServicerContext
    ) -> pb.CreateCatalogResponse:
        """Makes a catalogue."""
        violations = Violations()
        violations.check_catalog("catalog.name", request.catalog.name)
        requests.check_catalog_settings(violations, request.catalog)
        violations.raise_if_any()
        asked = request.catalog
        row = await self._serving.writer.create_catalog(asked.name, asked.display_name, asked.max_items)
        return pb.CreateCatalogResponse(catalog=responses.catalog(row))

    async def UpdateCatalog(
        self, request: pb.UpdateCatalogRequest, context: ServicerContext
    ) -> pb.UpdateCatalogResponse:
        """Changes a catalogue's settings."""
        settings = requests.read_catalog_update(request)
        self._named(request.catalog.name)
        row = await self._serving.writer.change_catalog(request.catalog.name, settings)
        return pb.UpdateCatalogResponse(catalog=responses.catalog(row))

    async def GetCatalog(self, request: pb.GetCatalogRequest, context: ServicerContext) -> pb.GetCatalogResponse:
        """Reads a catalogue's settings."""
        return pb.GetCatalogResponse(catalog=responses.catalog(self._named(request.catalog).row))

    async def ListCatalogs(self, request: pb.ListCatalogsRequest, context: ServicerContext) -> pb.ListCatalogsResponse:
        """Lists catalogues in the order of their names."""
        violations = Violations()
        size = requests.read_page_size(violations, request.page_size)
        violations.raise_if_any()
        after = self._serving.page_start(request.page_token, "catalogs", {})
        rows = [state.row for state in self._serving.registry if state.row.name > after]
        response = pb.ListCatalogsResponse(catalogs=[responses.catalog(row) for row in rows[:size]])
        if len(rows) > size:
            response.next_page_token = self._serving.tokens.sign("catalogs", {"after": rows[size - 1].name})
        return response

    async def DropCatalog(self, request: pb.DropCatalogRequest, context: ServicerContext) -> pb.DropCatalogResponse:
        """Drops a catalogue for good."""
        self._named(request.catalog)
        return pb.DropCatalogResponse(deleted_item_count=await self._serving.writer.drop_catalog(request.catalog))

    async def GetCatalogStats(
        self, request: pb.GetCatalogStatsRequest, context: ServicerContext
    ) -> pb.GetCatalogStatsResponse:
        """Figures about a catalogue and its index."""
        state = self._named(request.catalog)
        catalog_id = state.row.catalog_id

        def read() -> pb.GetCatalogStatsResponse:
            figures = self._serving.host.figures(IndexKey(catalog_id))
            with self._serving.store.reading() as connection:
                count = self._serving.store.item_count(connection, catalog_id)
                sequence = self._serving.store.sequence(connection, catalog_id)
            response = pb.GetCatalogStatsResponse(
                item_count=count,
                sequence=sequence,
                applied_sequence=state.directory.sequence,
                indexed_count=figures.live,
                tombstone_count=figures.tombstones,
                worker_restarts=self._serving.host.restarts,
                notices=self._serving.host.notices(catalog_id),
                queued_writes=self._serving.queue.queued,
            )
            if figures.snapshot is not None:
                response.snapshot_sequence = figures.snapshot.sequence
                response.snapshot_time.FromNanoseconds(int(figures.snapshot.created_at * 1e9))
            return response

        return await self._serving.in_thread(read)

    def _named(self, name: str) -> CatalogState:
        violations = Violations()
        violations.check_catalog("catalog", name)
        violations.raise_if_any()
        return self._serving.registry.get(name)
