"""Attribution tokens: what ties a later event to the place in the list where the item was seen."""

from __future__ import annotations

from dataclasses import dataclass

from ranking_service.selectors.slate import Slate
from service_runtime.signed_token import TokenSigner

KIND = "attribution"


@dataclass(frozen=True, slots=True)
class ListMark:
    """What all tokens of a list share.

    Attributes:
        bundle: The model bundle that made the list.
        variant: Of the experiment; empty: none.
        now: Unix seconds, the moment of the list.
    """

    list_id: str
    catalog: str
    bundle: str
    seed: int
    variant: str
    now: float


def list_mark(slate: Slate) -> ListMark:
    """The mark of a list."""
    query = slate.taste.query
    return ListMark(slate.list_id, query.catalog, slate.versions.bundle, query.seed, query.variant, query.now)


def attribution_token(signer: TokenSigner, mark: ListMark, item_id: str, rank: int, propensity: float) -> str:
    """A self-contained token.

    Keys: `l` list, `c` catalogue, `i` item, `r` rank from 1, `b` model bundle, `s` seed, `v` experiment variant, `p`
    propensity, `t` Unix seconds of the list. Whoever records the event verifies the signature and the item.
    """
    payload = {
        "l": mark.list_id,
        "c": mark.catalog,
        "i": item_id,
        "r": rank,
        "b": mark.bundle,
        "s": mark.seed,
        "p": round(propensity, 9),
        "t": round(mark.now, 3),
    }
    if mark.variant:
        payload["v"] = mark.variant
    return signer.sign(KIND, payload)
