"""What is asked of the recommender, as keyword arguments."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypedDict

from numpy.typing import ArrayLike

from zhiyin.common.v1 import filter_pb2
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin_client.values import mask
from zhiyin_client.vectors import to_matrix

Diversity = Literal["msd", "mmr", "dpp", "none"]
_METHODS = {
    "msd": ranking.DIVERSITY_METHOD_MSD,
    "mmr": ranking.DIVERSITY_METHOD_MMR,
    "dpp": ranking.DIVERSITY_METHOD_DPP,
    "none": ranking.DIVERSITY_METHOD_NONE,
}
_NOT_FIELDS = {"anonymous", "profile", "timeout"}


class ShelfOptions(TypedDict, total=False):
    """What recommendations and shelves of similar items have in common; each means what it means in the contract."""

    filter: filter_pb2.Filter
    """Only items that match."""
    page_size: int
    """Items a page, 1 to 100; unset: 10."""
    excluded_item_ids: Iterable[str]
    """At most 1,000."""
    diversity: float
    """0: the most relevant items; 1: the most varied list."""
    diversity_method: Diversity
    """Unset: msd."""
    item_mask: Iterable[str]
    """Fields of Item in each entry. Unset: title and categories."""
    timeout: float
    """Seconds for this call (each page); unset: the client's."""


class RecommendOptions(ShelfOptions, total=False):
    """What can be asked of a recommendation besides for whom it is."""

    anonymous: ranking.AnonymousProfile
    """Somebody who is not a stored user, instead of `user_id`."""
    profile: str
    """Short for an anonymous profile of this text."""
    query_text: str
    """What the user is looking for right now."""
    context: ranking.RecommendContext
    """Locale, time, device, place."""
    exploration: float
    """Share of places, in [0,1], given to items tried out."""
    explain: bool
    """Whether entries carry sources and a reason. Unset: True."""
    consistency_token: str
    """Reflect at least what the call that gave it wrote; a session fills it in."""
    experiment_variant: str
    """Copied into the attribution tokens."""
    include_seen: bool
    """Whether items the user already acted on may come back."""


def recommend_request(
    catalog: str, user_id: str | None, options: RecommendOptions, page_token: str = ""
) -> ranking.RecommendRequest:
    """Asks for a page of a list.

    Raises:
        ValueError: It is for a user and for an anonymous profile at once.
        TypeError: An option that there is not.
    """
    anonymous, profile = options.get("anonymous"), options.get("profile")
    if profile is not None:
        if anonymous is not None:
            raise ValueError("profile is short for an anonymous profile: give one of the two")
        anonymous = ranking.AnonymousProfile(text=profile)
    if user_id is not None and anonymous is not None:
        raise ValueError("a list is for user_id or for an anonymous profile, not for both")
    request = ranking.RecommendRequest(
        catalog=catalog,
        anonymous=anonymous,
        page_token=page_token,
        **_fields(options, RecommendOptions.__optional_keys__),
    )
    if user_id is not None:
        request.user_id = user_id
    return request


def similar_items_request(
    catalog: str, item_ids: Iterable[str], locale: str, options: ShelfOptions
) -> ranking.SimilarItemsRequest:
    """Asks for items like these. Raises TypeError for an option that there is not."""
    return ranking.SimilarItemsRequest(
        catalog=catalog, item_ids=item_ids, locale=locale, **_fields(options, ShelfOptions.__optional_keys__)
    )


def rerank_request(
    catalog: str,
    candidates: Mapping[str, float] | Iterable[tuple[str, float]],
    vectors: ArrayLike | None,
    *,
    user_id: str | None,
    personalization: float | None,
    page_size: int,
    diversity: float | None,
    diversity_method: Diversity,
) -> ranking.RerankRequest:
    """Asks for an order of the caller's own candidates.

    Raises:
        ValueError: There are not as many vectors as candidates.
    """
    pairs = list(candidates.items() if isinstance(candidates, Mapping) else candidates)
    matrix = None if vectors is None else to_matrix(vectors)
    if matrix is not None and matrix.rows != len(pairs):
        raise ValueError(f"{len(pairs)} candidates and {matrix.rows} vectors: it takes one for each")
    return ranking.RerankRequest(
        catalog=catalog,
        candidates=[ranking.RerankCandidate(item_id=item_id, score=score) for item_id, score in pairs],
        vectors=matrix,
        page_size=page_size,
        diversity=diversity,
        diversity_method=_METHODS[diversity_method],
        user_id=user_id or "",
        personalization=personalization,
    )


def _fields(options: ShelfOptions, known: frozenset[str]) -> dict[str, Any]:
    """The options that are fields of the request as they stand, None being as good as unset."""
    if unknown := options.keys() - known:
        raise TypeError(f"there is no option {', '.join(sorted(unknown))}")
    fields: dict[str, Any] = {
        name: value for name, value in options.items() if name not in _NOT_FIELDS and value is not None
    }
    if "item_mask" in fields:
        fields["item_mask"] = mask(fields["item_mask"])
    if "diversity_method" in fields:
        fields["diversity_method"] = _METHODS[fields["diversity_method"]]
    return fields
