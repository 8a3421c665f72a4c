"""Which version of which space a Search is about, and whether its vectors may meet that space's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from retrieval_service.catalog_registry import CatalogState
from retrieval_service.centering import unit
from retrieval_service.named_spaces import MAX_COMPONENT, SEMANTIC, SEMANTIC_VERSION, IndexKey
from service_runtime.errors import InvalidRequest, NotFound, SpaceMismatch, Violation


@dataclass(frozen=True, slots=True)
class SearchedSpace:
    """One space of a Search: its index, and what a vector must be to be compared there."""

    key: IndexKey
    dimensions: int
    fingerprint: str
    normalize: bool = True


class _Query(Protocol):
    @property
    def space(self) -> str: ...
    @property
    def vector(self) -> NDArray[np.float32] | None: ...
    @property
    def fingerprint(self) -> str: ...


def resolve(state: CatalogState, asked: Mapping[str, int]) -> dict[str, SearchedSpace | None]:
    """The version of each space that is asked for, all of one moment; None: `semantic` without a vector yet.

    Args:
        state: Of the catalogue.
        asked: Versions by space; 0: the published one.

    Raises:
        NotFound: There is no such space or version.
        FailedPrecondition: A space has no published version and none is named.
    """
    spaces, found = state.spaces, dict[str, SearchedSpace | None]()  # once: another version may be published meanwhile
    catalog_id = state.row.catalog_id
    for name, version in asked.items():
        if name == SEMANTIC:
            if version not in (0, SEMANTIC_VERSION):
                raise NotFound("space_version", f"{name}/{version}", f"space {name!r} has version 1 only")
            own = state.space
            found[name] = None if own is None else SearchedSpace(IndexKey(catalog_id), own.dimensions, own.fingerprint)
        else:
            row = spaces.to_search(name, version)
            key = IndexKey(catalog_id, name, row.version)
            found[name] = SearchedSpace(key, row.dimensions, row.fingerprint, row.normalize)
    return found


def checked_vectors(
    queries: Sequence[_Query], spaces: Mapping[str, SearchedSpace | None]
) -> list[NDArray[np.float32] | None]:
    """The vector of each query as its space takes it in; None for queries without one, or without a space yet.

    Raises:
        SpaceMismatch: A vector is of another model.
        InvalidRequest: A vector has other dimensions, or is too long for an inner product space.
    """
    out: list[NDArray[np.float32] | None] = []
    violations = []
    for i, query in enumerate(queries):
        space, vector = spaces[query.space], query.vector
        out.append(vector)
        if vector is None or space is None:
            continue
        if query.fingerprint and query.fingerprint != space.fingerprint:
            raise SpaceMismatch(expected=space.fingerprint, actual=query.fingerprint)
        if len(vector) != space.dimensions:
            what = f"is {len(vector)}; the space has {space.dimensions}"
            violations.append(Violation(f"queries[{i}].vector.dimensions", what))
        elif space.normalize and not space.key.semantic:  # that of `semantic` was normalised as it was read
            out[-1] = unit(vector[None, :])[0]
        elif not space.normalize and float(np.abs(vector).max()) > MAX_COMPONENT:
            what = f"has a component beyond {MAX_COMPONENT:g}, which an inner product space does not take"
            violations.append(Violation(f"queries[{i}].vector.data", what))
    if violations:
        raise InvalidRequest(violations)
    return out
