"""The gRPC servicer: each RPC lives with its subject. Errors are raised."""

from __future__ import annotations

from retrieval_service import requests
from retrieval_service.rpcs_catalogs import CatalogRpcs
from retrieval_service.rpcs_items import ItemRpcs
from retrieval_service.rpcs_search import SearchRpcs
from retrieval_service.rpcs_spaces import SpaceRpcs
from retrieval_service.serving import Serving
from service_runtime.grpc_types import ServicerContext
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin.retrieval.v1.retrieval_service_pb2_grpc import RetrievalServiceServicer


class RetrievalServicer(ItemRpcs, SearchRpcs, CatalogRpcs, SpaceRpcs, RetrievalServiceServicer):
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
            max_space_versions=settings.max_space_versions,
            max_space_dimensions=settings.max_space_dimensions,
        )
        response.default_deadline.FromNanoseconds(int(settings.default_deadline_s * 1e9))
        return response
