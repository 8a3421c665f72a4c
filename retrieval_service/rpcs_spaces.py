"""The RPCs that make, fill, publish, list and retire versions of vector spaces."""

from __future__ import annotations

from retrieval_service import requests, responses, space_requests
from retrieval_service.named_spaces import SEMANTIC, NamedSpace
from retrieval_service.serving import Serving
from retrieval_service.space_messages import VectorBatch
from service_runtime.grpc_types import ServicerContext
from service_runtime.validation import Violations
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb


class SpaceRpcs:
    """The part of the servicer that is about vector spaces."""

    _serving: Serving

    async def CreateSpaceVersion(
        self, request: pb.CreateSpaceVersionRequest, context: ServicerContext
    ) -> pb.CreateSpaceVersionResponse:
        """Starts a version of a space."""
        max_dimensions = self._serving.settings.max_space_dimensions
        new = await self._serving.in_thread(lambda: space_requests.read_create(request, max_dimensions))
        self._serving.registry.get(new.catalog)
        space = await self._serving.spaces.create(new)
        return pb.CreateSpaceVersionResponse(space_version=await self._shown(request.catalog, space))

    async def PutVectors(self, request: pb.PutVectorsRequest, context: ServicerContext) -> pb.PutVectorsResponse:
        """Puts vectors into a version."""
        max_items = self._serving.settings.max_items_per_batch

        def read() -> VectorBatch:
            ids, vectors = space_requests.read_put(request, max_items)
            space = self._serving.registry.get(request.catalog).spaces.version(request.space, request.version)
            return space_requests.vectors_for(space, request, ids, vectors)

        batch = await self._serving.in_thread(read)
        return pb.PutVectorsResponse(sequence=await self._serving.spaces.put(batch))

    async def PublishSpaceVersion(
        self, request: pb.PublishSpaceVersionRequest, context: ServicerContext
    ) -> pb.PublishSpaceVersionResponse:
        """Makes a version the one that searches use by default."""
        _check_version(request)
        space = await self._serving.spaces.publish(request.catalog, request.space, request.version)
        return pb.PublishSpaceVersionResponse(space_version=await self._shown(request.catalog, space))

    async def RetireSpaceVersion(
        self, request: pb.RetireSpaceVersionRequest, context: ServicerContext
    ) -> pb.RetireSpaceVersionResponse:
        """Drops a version for good."""
        _check_version(request)
        self._serving.registry.get(request.catalog)
        await self._serving.spaces.retire(request.catalog, request.space, request.version)
        return pb.RetireSpaceVersionResponse()

    async def ListSpaceVersions(
        self, request: pb.ListSpaceVersionsRequest, context: ServicerContext
    ) -> pb.ListSpaceVersionsResponse:
        """Lists the live versions of a catalogue's spaces."""
        violations = Violations()
        violations.check_catalog("catalog", request.catalog)
        size = requests.read_page_size(violations, request.page_size)
        violations.raise_if_any()
        state = self._serving.registry.get(request.catalog)
        scope = {"catalog": state.row.catalog_id}
        after = self._serving.page_start(request.page_token, "space_versions", scope)
        rows = sorted([(SEMANTIC, 1), *((space.space, space.version) for space in state.spaces)])
        # Padded, so that words are in the order of the numbers.
        left = [(name, version) for name, version in rows if _place(name, version) > after]
        page = left[:size]
        named = [space for space in state.spaces if (space.space, space.version) in page]
        figures = await self._serving.in_thread(lambda: self._serving.spaces.figures(state.row.catalog_id, named))
        shown = {
            (space.space, space.version): responses.named_space(space, own)
            for space, own in zip(named, figures, strict=True)
        }
        if (SEMANTIC, 1) in page:
            shown[SEMANTIC, 1] = responses.semantic_space(state.space)
        response = pb.ListSpaceVersionsResponse(space_versions=[shown[key] for key in page])
        if len(left) > size:
            response.next_page_token = self._serving.tokens.sign(
                "space_versions", {**scope, "after": _place(*page[-1])}
            )
        return response

    async def _shown(self, catalog: str, space: NamedSpace) -> pb.SpaceVersion:
        catalog_id = self._serving.registry.get(catalog).row.catalog_id
        (figures,) = await self._serving.in_thread(lambda: self._serving.spaces.figures(catalog_id, [space]))
        return responses.named_space(space, figures)


def _check_version(request: pb.PublishSpaceVersionRequest | pb.RetireSpaceVersionRequest) -> None:
    violations = Violations()
    space_requests.check_version(violations, request.catalog, request.space, request.version)
    violations.raise_if_any()


def _place(name: str, version: int) -> str:
    return f"{name} {version:020d}"  # a space comes before every character of a name
