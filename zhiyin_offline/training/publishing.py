"""From a trained bundle to one that serves: its item vectors as a space of retrieval, its files, then the switch.

Nothing is used before it is whole: vectors are put into a version that no search names yet, the bundle appears under
its name in one step, and ranking switches by one assignment. A training that ends in between leaves things that serve
nobody and that the next one clears away.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import grpc
import numpy as np
from google.rpc import error_details_pb2
from grpc_status import rpc_status
from numpy.typing import NDArray

from ranking_service.bundles.bundle import (
    BundleUnusable,
    Manifest,
    active_bundle,
    bundle_folders,
    read_manifest,
    write_bundle,
)
from ranking_service.bundles.sequence_files import SPACE
from zhiyin.common.v1.embedding_pb2 import VECTOR_DTYPE_FLOAT32, Embedding, EmbeddingMatrix
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as ranking_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2 as pb
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as pb_grpc
from zhiyin_offline.evaluation.memory_catalog import Space
from zhiyin_offline.training.train import Trained

if TYPE_CHECKING:  # PyTorch stays out
    from zhiyin_offline.training.sequence_step import SequencePart

_BATCH = 500
_TIMEOUT_S = 60.0
_PUBLISH_TIMEOUT_S = 600.0  # the index of all vectors is built meanwhile
# Bundles whose space versions are kept: the one that serves and the way back.
_KEPT = 3


def publish_sequence(
    retrieval: pb_grpc.RetrievalServiceStub, catalog: str, part: SequencePart, semantic: Space, bundle: str
) -> int:
    """Makes the item vectors of a sequence model a version of the derived space, and returns the version.

    Args:
        retrieval: The service.
        catalog: Of the items.
        part: The model.
        semantic: The space that the model's projection was trained on.
        bundle: Id; a repeat for the same one makes no second version.

    Raises:
        grpc.RpcError: Retrieval refuses or is away.
    """
    made = retrieval.CreateSpaceVersion(
        pb.CreateSpaceVersionRequest(
            catalog=catalog,
            space_version=pb.SpaceVersion(
                space=SPACE,
                dimensions=part.vectors.shape[1],
                metric=pb.METRIC_INNER_PRODUCT,
                space_fingerprint=part.space.fingerprint,
            ),
            request_id=bundle,
            **_projection(part, semantic),
        ),
        timeout=_TIMEOUT_S,
    ).space_version
    for ids, vectors in _batches(part.item_ids, part.vectors):
        _put(retrieval, catalog, made.version, ids, vectors, part.space.fingerprint)
    retrieval.PublishSpaceVersion(
        pb.PublishSpaceVersionRequest(catalog=catalog, space=SPACE, version=made.version), timeout=_PUBLISH_TIMEOUT_S
    )
    return int(made.version)


def save(folder: Path, trained: Trained, sequence_version: int) -> Manifest:
    """Writes the bundle into the catalogue's folder; `sequence_version` is that of its space, 0 without one."""
    spaces = {SPACE: sequence_version} if sequence_version else {}
    return write_bundle(folder, replace(trained.manifest, spaces=spaces), trained.files)


def activate(ranking: ranking_grpc.RankingServiceStub, catalog: str, bundle: str) -> None:
    """Lets a bundle serve.

    Raises:
        grpc.RpcError: Ranking refuses or is away; the bundle before goes on.
    """
    ranking.ActivateBundle(ranking_pb.ActivateBundleRequest(catalog=catalog, bundle_id=bundle), timeout=_TIMEOUT_S)


def retire_old_spaces(retrieval: pb_grpc.RetrievalServiceStub, catalog: str, folder: Path) -> int:
    """Drops versions of the space that none of the latest bundles needs; returns how many.

    Raises:
        grpc.RpcError: Retrieval refuses or is away.
    """
    manifests = []
    for bundle in bundle_folders(folder):
        try:
            manifests.append(read_manifest(bundle))
        except BundleUnusable:
            continue  # it cannot serve, so it needs nothing
    manifests.sort(key=lambda manifest: -manifest.created_at)
    needed = {manifest.spaces.get(SPACE) for manifest in manifests[:_KEPT]}
    needed |= {m.spaces.get(SPACE) for m in manifests if m.id == active_bundle(folder)}
    reply = retrieval.ListSpaceVersions(
        pb.ListSpaceVersionsRequest(catalog=catalog, page_size=1_000), timeout=_TIMEOUT_S
    )
    retired = 0
    for version in reply.space_versions:
        if version.space == SPACE and not version.published and version.version not in needed:
            request = pb.RetireSpaceVersionRequest(catalog=catalog, space=SPACE, version=version.version)
            retrieval.RetireSpaceVersion(request, timeout=_TIMEOUT_S)
            retired += 1
    return retired


def _projection(part: SequencePart, semantic: Space) -> dict[str, Any]:
    """What makes the vector of an item that comes later; nothing where the model knows ids only."""
    if not len(part.projection):
        return {}
    dimensions = semantic.rows.shape[1]
    mean = semantic.mean if semantic.mean is not None else np.zeros(dimensions, np.float32)
    return {
        "derived_from_space": "semantic",
        "projection": _matrix(part.projection.T, ""),
        "source_mean": Embedding(data=mean.astype("<f4").tobytes(), dtype=VECTOR_DTYPE_FLOAT32, dimensions=dimensions),
    }


def _put(
    retrieval: pb_grpc.RetrievalServiceStub,
    catalog: str,
    version: int,
    ids: Sequence[str],
    vectors: NDArray[np.float32],
    fingerprint: str,
) -> None:
    """One batch. Items that were deleted since the record was read are left out."""
    while len(ids):
        request = pb.PutVectorsRequest(
            catalog=catalog, space=SPACE, version=version, item_ids=ids, vectors=_matrix(vectors, fingerprint)
        )
        try:
            retrieval.PutVectors(request, timeout=_TIMEOUT_S)
            return
        except grpc.RpcError as error:
            gone = _named_rows(error)
            if not gone:
                raise
            kept = [row for row in range(len(ids)) if row not in gone]
            ids, vectors = [ids[row] for row in kept], vectors[kept]


def _named_rows(error: grpc.RpcError) -> set[int]:
    """Rows of the items that the refusal names; empty when it is about something else."""
    status = rpc_status.from_call(error)
    bad, rows = error_details_pb2.BadRequest(), set()
    for detail in status.details if status is not None else ():
        if detail.Unpack(bad):
            for violation in bad.field_violations:
                name, _, place = violation.field.partition("[")
                if name != "item_ids" or not place.rstrip("]").isdigit():
                    return set()
                rows.add(int(place.rstrip("]")))
    return rows


def _batches(ids: Sequence[str], vectors: NDArray[np.float32]) -> Iterator[tuple[list[str], NDArray[np.float32]]]:
    for start in range(0, len(ids), _BATCH):
        yield list(ids[start : start + _BATCH]), vectors[start : start + _BATCH]


def _matrix(rows: NDArray[np.float32], fingerprint: str) -> EmbeddingMatrix:
    return EmbeddingMatrix(
        data=np.ascontiguousarray(rows, "<f4").tobytes(),
        dtype=VECTOR_DTYPE_FLOAT32,
        rows=len(rows),
        dimensions=rows.shape[1],
        space_fingerprint=fingerprint,
    )
