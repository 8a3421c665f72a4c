"""What the RPCs work with once the store is loaded."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, TypeVar

from google.protobuf.message import Message

from retrieval_service.catalog_registry import CatalogRegistry
from retrieval_service.catalog_writer import CatalogWriter
from retrieval_service.encoder_client import TextEncoder
from retrieval_service.index_host import IndexHost
from retrieval_service.item_store import ItemStore
from retrieval_service.search import Searcher
from retrieval_service.settings import RetrievalSettings
from retrieval_service.space_writer import SpaceWriter
from service_runtime.admission import Door
from service_runtime.signed_token import TokenSigner
from service_runtime.sql_writer import SqlWriter

M = TypeVar("M", bound=Message)
T = TypeVar("T")
# Reading a larger request takes longer than a trip to a thread.
_READ_INLINE_BYTES = 4096


@dataclass(frozen=True, slots=True)
class Serving:
    """The parts of a running service that its RPCs share."""

    settings: RetrievalSettings
    registry: CatalogRegistry
    store: ItemStore
    host: IndexHost
    searcher: Searcher
    writer: CatalogWriter
    spaces: SpaceWriter
    encoder: TextEncoder
    tokens: TokenSigner
    queue: SqlWriter[Any]
    threads: Executor
    search_door: Door

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Runs what blocks or computes, away from the event loop."""
        return await asyncio.get_running_loop().run_in_executor(self.threads, call)

    async def read(self, reader: Callable[[M], T], request: M) -> T:
        """Checks and reads a request, in a thread when it is large."""
        if request.ByteSize() <= _READ_INLINE_BYTES:
            return reader(request)
        return await self.in_thread(lambda: reader(request))

    def page_start(self, token: str, kind: str, scope: dict[str, Any]) -> str:
        """Where the page before ended; empty: there was none.

        Raises:
            InvalidRequest: The token is not ours, or of another list.
        """
        return str(self.tokens.page_start(kind, token, scope, "catalogue or filter") or "")
