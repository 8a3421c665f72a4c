"""The gRPC servicer: each RPC lives with its subject; what this release cannot do says so here. Errors are raised."""

from __future__ import annotations

from retrieval_service import requests
from retrieval_service.rpcs_catalogs import CatalogRpcs
from retrieval_service.rpcs_items import ItemRpcs
from retrieval_service.rpcs_search import SearchRpcs
from retrieval_service.serving import Serving
from service_runtime.errors import NotImplementedYet
from service_runtime.grpc_types import ServicerContext
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceServicer


class RetrievalServicer(ItemRpcs, SearchRpcs, CatalogRpcs, RetrievalServiceServicer):
    """Serves once `serve` has been called; the runtime refuses calls before."""

    def serve(self, serving: Serving) -> None:
        """Takes over what exists only after the store is loaded."""
        self._serving = serving

    async def GetLimits(self, request: pb.GetLimitsRequest, context: ServicerContext) -> pb.GetLimitsResponse:
        """The limits of this server."""
        settings = self._serving.settings
        response = pb.GetLimitsResponse(
            max_items_per_batch=settings.max_items_per_batch,
            max_message_bytes=settings.max_message_bytes,
            max_queued_bytes=settings.max_queued_bytes,
            max_queries_per_search=requests.MAX_QUERIES,
            max_hits_per_query=requests.MAX_HITS,
            max_hydrated_items=requests.MAX_HYDRATED,
            max_items_per_catalog=settings.max_items_per_catalog,
            max_catalogs=settings.max_catalogs,
        )
        response.default_deadline.FromNanoseconds(int(settings.default_deadline_s * 1e9))
        return response

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
