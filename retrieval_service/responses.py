"""Writes the domain's answers as messages of the contract, and keeps them within what clients accept."""

from __future__ import annotations

from typing import TypeVar

from google.protobuf.message import Message

from retrieval_service import conversions
from retrieval_service.catalog_registry import CatalogState
from retrieval_service.item_cache import Hidden
from retrieval_service.item_store import CatalogRow
from retrieval_service.named_spaces import SEMANTIC
from retrieval_service.search import SearchOutput
from retrieval_service.write_messages import UpsertOutcome
from service_runtime.errors import InvalidRequest, Violation
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb

# Clients accept 4 MiB by default; a reply stays below that with room for what gRPC adds.
MAX_REPLY_BYTES = 3 << 20

M = TypeVar("M", bound=Message)


def within_limit(response: M, field: str) -> M:
    """Refuses a reply that the client would not accept anyway, and says what to ask for less of."""
    size = response.ByteSize()
    if size > MAX_REPLY_BYTES:
        raise InvalidRequest(
            [
                Violation(
                    field,
                    f"the reply would have {size} bytes, {MAX_REPLY_BYTES} are allowed; ask for fewer fields or items",
                )
            ]
        )
    return response


def upsert_response(outcome: UpsertOutcome) -> pb.UpsertItemsResponse:
    """What became of a batch."""
    response = pb.UpsertItemsResponse(sequence=outcome.sequence)
    for result in outcome.results:
        response.results.add(
            item_id=result.item_id,
            revision=result.revision,
            created=result.created,
            text_truncated=result.text_truncated,
        )
    return response


def item_entry(payload: bytes, hidden: Hidden) -> bytes:
    """A stored item, without the hidden fields, as one entry of a serialised SearchResponse.

    Messages that are concatenated merge: a response of hundreds of items is put together by one join and one parse.
    """
    response = pb.SearchResponse()
    conversions.fill_item(response.items.add(), payload, hidden)
    return response.SerializeToString()


def search_response(state: CatalogState, output: SearchOutput) -> pb.SearchResponse:
    """The answer to a Search."""
    response = pb.SearchResponse.FromString(b"".join(output.items))
    response.hydrated_indices.extend(output.hydrated)
    response.missing_item_ids.extend(output.missing)
    response.filtered_item_ids.extend(output.filtered)
    response.sequence = output.sequence
    response.space_versions[SEMANTIC] = 1
    for result in output.results:
        response.results.add(
            name=result.name,
            item_indices=result.positions,
            scores=result.scores,
            plan=pb.SearchPlan.ValueType(result.plan.value),
            missing_item_ids=result.missing,
        )
    fingerprint = state.space.fingerprint if state.space is not None else ""
    if output.item_vectors is not None and output.query_vectors is not None:
        conversions.fill_matrix(response.item_vectors, output.item_vectors, fingerprint)
        conversions.fill_matrix(response.query_vectors, output.query_vectors, fingerprint)
    return response


def catalog(row: CatalogRow) -> pb.Catalog:
    """A catalogue's settings."""
    message = pb.Catalog(name=row.name, display_name=row.display_name, max_items=row.max_items)
    message.created_at.FromMicroseconds(row.created_at_us)
    return message
