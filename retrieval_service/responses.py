"""Writes the domain's answers as messages of the contract, and keeps them within what clients accept."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from google.protobuf.message import Message

from retrieval_service import conversions
from retrieval_service.item_cache import Hidden
from retrieval_service.item_store import CatalogRow
from retrieval_service.named_spaces import SEMANTIC, SEMANTIC_VERSION, NamedSpace
from retrieval_service.search import SearchOutput
from retrieval_service.space_writer import SpaceFigures
from retrieval_service.vector_rows import SpaceRow
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


def search_response(output: SearchOutput, vectors_space: str) -> pb.SearchResponse:
    """The answer to a Search; `vectors_space` is that of the vectors, if there are any."""
    response = pb.SearchResponse.FromString(b"".join(output.items))
    response.hydrated_indices.extend(output.hydrated)
    response.missing_item_ids.extend(output.missing)
    response.filtered_item_ids.extend(output.filtered)
    response.sequence = output.sequence
    response.space_versions[SEMANTIC] = SEMANTIC_VERSION
    for name, space in output.spaces.items():
        if space is not None:
            response.space_versions[name] = space.key.version
    for result in output.results:
        response.results.add(
            name=result.name,
            item_indices=result.positions,
            scores=result.scores,
            plan=pb.SearchPlan.ValueType(result.plan.value),
            missing_item_ids=result.missing,
            all_scores=None if result.all_scores is None else result.all_scores.astype(np.float32),
        )
    for label in output.labels:
        response.labels.add(name=label.name, item_indices=label.positions, added_indices=label.added)
    # A space that no item has been put into has no dimensions either: then there are no vectors, not empty ones.
    if output.item_vectors is not None and output.query_vectors is not None and output.query_vectors.shape[1]:
        shown = output.spaces[vectors_space]
        fingerprint = shown.fingerprint if shown is not None else ""
        conversions.fill_matrix(response.item_vectors, output.item_vectors, fingerprint)
        conversions.fill_matrix(response.query_vectors, output.query_vectors, fingerprint)
    return response


def semantic_space(space: SpaceRow | None) -> pb.SpaceVersion:
    """The encoder's space; None: it has no vectors yet."""
    message = pb.SpaceVersion(
        space=SEMANTIC, version=SEMANTIC_VERSION, metric=pb.METRIC_COSINE, centered=True, published=True
    )
    if space is not None:
        message.dimensions = space.dimensions
        message.space_fingerprint = space.fingerprint
        message.vector_count = space.centering.count
    return message


def named_space(space: NamedSpace, figures: SpaceFigures) -> pb.SpaceVersion:
    """A version of another space."""
    return pb.SpaceVersion(
        space=space.space,
        version=space.version,
        dimensions=space.dimensions,
        metric=pb.METRIC_COSINE if space.normalize else pb.METRIC_INNER_PRODUCT,
        centered=space.centered,
        space_fingerprint=space.fingerprint,
        published=space.published,
        vector_count=figures.vectors,
        derived_from_space=space.derived_from,
        put_vector_count=figures.put,
    )


def catalog(row: CatalogRow) -> pb.Catalog:
    """A catalogue's settings."""
    message = pb.Catalog(name=row.name, display_name=row.display_name, max_items=row.max_items)
    message.created_at.FromMicroseconds(row.created_at_us)
    return message
