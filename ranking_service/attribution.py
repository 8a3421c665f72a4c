"""Attribution tokens: what ties a later event to the place in the list where the item was seen."""

from __future__ import annotations

from ranking_service.selectors.slate import Slate
from service_runtime.signed_token import TokenSigner

KIND = "attribution"


def attribution_token(signer: TokenSigner, slate: Slate, item_id: str, rank: int, propensity: float) -> str:
    """A self-contained token.

    Keys: `l` list, `c` catalogue, `i` item, `r` rank from 1, `b` model bundle, `s` seed, `v` experiment variant, `p`
    propensity, `t` Unix seconds of the list. Whoever records the event verifies the signature and the item.
    """
    query = slate.taste.query
    payload = {
        "l": slate.list_id,
        "c": query.catalog,
        "i": item_id,
        "r": rank,
        "b": slate.versions.bundle,
        "s": query.seed,
        "p": round(propensity, 9),
        "t": round(query.now, 3),
    }
    if query.variant:
        payload["v"] = query.variant
    return signer.sign(KIND, payload)
