"""The RPC that searches."""

from __future__ import annotations

import asyncio
import dataclasses
import time

from retrieval_service import requests, responses
from retrieval_service.catalog_registry import CatalogState
from retrieval_service.named_spaces import SEMANTIC
from retrieval_service.search import SearchInput
from retrieval_service.searched_spaces import resolve
from retrieval_service.serving import Serving
from service_runtime import request_context
from service_runtime.errors import FailedPrecondition, InvalidRequest, NotReady, Violation
from service_runtime.grpc_types import ServicerContext
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb

# A replica that is further behind is not worth waiting for: the caller does better with another one.
_SEQUENCE_WAIT_S = 2.0
_SEQUENCE_POLL_S = 0.005


class SearchRpcs:
    """The part of the servicer that searches."""

    _serving: Serving

    async def Search(self, request: pb.SearchRequest, context: ServicerContext) -> pb.SearchResponse:
        """Answers several queries over one state."""
        started = time.monotonic()
        plan = await self._serving.read(requests.read_search, request)
        state = self._serving.registry.get(request.catalog)
        await self._wait_for(state, plan.min_sequence)
        search = await self._encode_texts(state, plan.search, plan.texts)
        timeout_s = request_context.current().deadline.child_timeout()

        def answer() -> pb.SearchResponse:
            output = self._serving.searcher.run(state, search, timeout_s)
            response = responses.search_response(output, search.vectors_space)
            response.search_time.FromNanoseconds(int((time.monotonic() - started) * 1e9))
            return responses.within_limit(response, "read_mask")

        return await self._serving.in_thread(answer)

    async def _wait_for(self, state: CatalogState, sequence: int) -> None:
        deadline = request_context.current().deadline
        give_up = time.monotonic() + min(_SEQUENCE_WAIT_S, 0.9 * deadline.remaining())
        while state.directory.sequence < sequence:
            if time.monotonic() >= give_up:
                raise NotReady(f"the catalogue is at sequence {state.directory.sequence}, {sequence} has not come yet")
            await asyncio.sleep(_SEQUENCE_POLL_S)

    async def _encode_texts(self, state: CatalogState, search: SearchInput, texts: dict[int, str]) -> SearchInput:
        if not texts:
            return search
        foreign = {i: search.queries[i].space for i in texts if search.queries[i].space != SEMANTIC}
        if foreign:
            resolve(state, search.versions)  # one that is unknown is rather said to be that
            what = f"is encoded for {SEMANTIC!r} only; ask another space by vector or examples"
            raise InvalidRequest([Violation(f"queries[{i}].text", what) for i in foreign])
        async with self._serving.search_door.outside():
            encoded = await self._serving.encoder.queries(list(texts.values()))
        dimensions = encoded.vectors.shape[1]
        if state.space is not None and state.space.dimensions != dimensions:
            # Not the caller's fault, as it would be with a vector of theirs.
            raise FailedPrecondition(
                f"the encoder's vectors have {dimensions} dimensions, the catalogue's {state.space.dimensions}",
                reason="SPACE_MISMATCH",
            )
        queries = list(search.queries)
        for row, i in enumerate(texts):
            queries[i] = dataclasses.replace(queries[i], vector=encoded.vectors[row], fingerprint=encoded.fingerprint)
        return dataclasses.replace(search, queries=tuple(queries))
