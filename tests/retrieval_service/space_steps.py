"""Steps of tests about vector spaces: vectors on the wire, and versions made, filled and published in one line."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tests.retrieval_service.fake_encoder_server import DIMENSIONS, embed
from tests.retrieval_service.retrieval_harness import Retrieval
from zhiyin.common.v1.embedding_pb2 import VECTOR_DTYPE_FLOAT16, VECTOR_DTYPE_FLOAT32, Embedding, EmbeddingMatrix
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb

SPACE, FINGERPRINT, SIZE = "sequence", "model-7", 6


def wire_matrix(rows: NDArray[Any], fingerprint: str = "") -> EmbeddingMatrix:
    return EmbeddingMatrix(
        data=rows.astype("<f4").tobytes(),
        dtype=VECTOR_DTYPE_FLOAT32,
        rows=len(rows),
        dimensions=rows.shape[1],
        space_fingerprint=fingerprint,
    )


def wire_vector(values: NDArray[Any], fingerprint: str = "") -> Embedding:
    return Embedding(
        data=np.asarray(values).astype("<f4").tobytes(),
        dtype=VECTOR_DTYPE_FLOAT32,
        dimensions=len(values),
        space_fingerprint=fingerprint,
    )


def rows_of(message: EmbeddingMatrix) -> NDArray[np.float32]:
    assert message.dtype == VECTOR_DTYPE_FLOAT16
    return np.frombuffer(message.data, "<f2").reshape(message.rows, message.dimensions).astype(np.float32)


def linear(seed: int = 0, size: int = SIZE) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """A map from the encoder's space and its bias."""
    random = np.random.default_rng(seed)
    weights = random.standard_normal((size, DIMENSIONS)).astype(np.float32)
    return weights, random.standard_normal(size).astype(np.float32)


def projected(
    titles: Sequence[str], weights: NDArray[Any], bias: NDArray[Any], mean: NDArray[Any] | None = None
) -> NDArray[np.float64]:
    """What a derived space should hold for items of these titles, computed the plain way."""
    source = np.stack([embed(title) for title in titles]).astype(np.float64)
    if mean is not None:
        source = source - mean
    source /= np.linalg.norm(source, axis=1, keepdims=True)
    return source @ weights.astype(np.float64).T + bias


async def create(
    retrieval: Retrieval, *, catalog: str = "default", request_id: str = "", **changes: Any
) -> pb.SpaceVersion:
    """A version; named arguments change the request."""
    derived = {name: changes.pop(name) for name in ("projection", "bias", "source_mean") if name in changes}
    version = pb.SpaceVersion(
        **{
            "space": SPACE,
            "dimensions": SIZE,
            "metric": pb.METRIC_INNER_PRODUCT,
            "space_fingerprint": FINGERPRINT,
            **changes,
        }
    )
    request = pb.CreateSpaceVersionRequest(catalog=catalog, space_version=version, request_id=request_id)
    if "projection" in derived:
        request.derived_from_space = "semantic"
        request.projection.CopyFrom(wire_matrix(derived["projection"]))
    for name in ("bias", "source_mean"):
        if name in derived:
            getattr(request, name).CopyFrom(wire_vector(derived[name]))
    return (await retrieval.stub.CreateSpaceVersion(request, timeout=20)).space_version


async def put(
    retrieval: Retrieval, version: pb.SpaceVersion, vectors: dict[str, NDArray[Any]], catalog: str = "default"
) -> int:
    request = pb.PutVectorsRequest(
        catalog=catalog,
        space=version.space,
        version=version.version,
        item_ids=list(vectors),
        vectors=wire_matrix(np.stack(list(vectors.values())), version.space_fingerprint),
    )
    return (await retrieval.stub.PutVectors(request, timeout=20)).sequence


async def publish(retrieval: Retrieval, version: pb.SpaceVersion, catalog: str = "default") -> pb.SpaceVersion:
    request = pb.PublishSpaceVersionRequest(catalog=catalog, space=version.space, version=version.version)
    return (await retrieval.stub.PublishSpaceVersion(request, timeout=20)).space_version


async def retire(retrieval: Retrieval, version: pb.SpaceVersion, catalog: str = "default") -> None:
    request = pb.RetireSpaceVersionRequest(catalog=catalog, space=version.space, version=version.version)
    await retrieval.stub.RetireSpaceVersion(request, timeout=20)


async def listed(retrieval: Retrieval, catalog: str = "default", **options: Any) -> list[pb.SpaceVersion]:
    request = pb.ListSpaceVersionsRequest(catalog=catalog, **options)
    return list((await retrieval.stub.ListSpaceVersions(request, timeout=20)).space_versions)


async def search(
    retrieval: Retrieval, vector: NDArray[Any], *, catalog: str = "default", space: str = SPACE, **options: Any
) -> pb.SearchResponse:
    """One query by a vector; `with_vectors` asks for the vectors of the space."""
    request = pb.SearchRequest(catalog=catalog)
    for name in ("hydrate_item_ids", "vectors_space", "vectors_space_version", "min_sequence", "exclude_item_ids"):
        if name in options:
            value = options.pop(name)
            if isinstance(value, list):
                getattr(request, name).extend(value)
            else:
                setattr(request, name, value)
    request.queries.add(**{"vector": wire_vector(vector), "space": space, "limit": 1000, **options})
    return await retrieval.stub.Search(request, timeout=20)


async def held(retrieval: Retrieval, ids: Sequence[str], version: pb.SpaceVersion) -> dict[str, NDArray[np.float32]]:
    """The vectors of items in a version, as the service compares them."""
    reply = await retrieval.stub.Search(
        pb.SearchRequest(
            catalog="default",
            hydrate_item_ids=ids,
            vectors_space=version.space,
            vectors_space_version=version.version,
            include_unavailable=True,
        ),
        timeout=20,
    )
    assert reply.item_vectors.space_fingerprint == version.space_fingerprint
    rows = rows_of(reply.item_vectors)
    return {item.id: rows[i] for i, item in enumerate(reply.items)}
