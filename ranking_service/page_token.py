"""Page tokens: enough to go on with a list on any replica, signed, good for the request they were made for only."""

from __future__ import annotations

import base64
import hashlib
import hmac
import zlib
from dataclasses import dataclass

from service_runtime.errors import InvalidRequest, Violation
from service_runtime.signed_token import TokenSigner
from zhiyin.ranking.v1.ranking_service_pb2 import RecommendRequest

_KIND = "recommend_page"
_DIGEST_BYTES = 5
# Of the ids in a token, compressed; beyond, the oldest are left out.
_MAX_IDS_BYTES = 6_000


@dataclass(frozen=True, slots=True)
class PageToken:
    """Where a list goes on.

    Attributes:
        list_id: To find the list again.
        seed: Of everything random in it.
        now: The moment it was made for, Unix seconds.
        places: Places of the list read so far, served or not.
        served: Digests of the ids served so far, in their order; when the list has to be made anew they do not come
            again.
        collapsing: Ids of those served that a COLLAPSE rule is about: their near-duplicates do not come either.
    """

    list_id: str
    seed: int
    now: float
    places: int
    served: tuple[bytes, ...]
    collapsing: tuple[str, ...] = ()


def id_digest(item_id: str) -> bytes:
    """A short digest of an item id: two of a list of 200 are equal about once in fifty million lists."""
    return hashlib.blake2b(item_id.encode(), digest_size=_DIGEST_BYTES).digest()


def request_digest(request: RecommendRequest) -> str:
    """What must not change from page to page: everything but the page, its size and the consistency token."""
    same = RecommendRequest()
    same.CopyFrom(request)
    for field in ("page_token", "page_size", "consistency_token"):
        same.ClearField(field)
    return hashlib.blake2b(same.SerializeToString(deterministic=True), digest_size=9).hexdigest()


def write_page_token(signer: TokenSigner, request: RecommendRequest, token: PageToken) -> str:
    """The token of the next page."""
    payload = {
        "l": token.list_id,
        "q": request_digest(request),
        "s": token.seed,
        "t": token.now,
        "p": token.places,
        "h": base64.b85encode(b"".join(token.served)).decode(),
    }
    if token.collapsing:
        payload["d"] = _pack(token.collapsing)
    return signer.sign(_KIND, payload)


def read_page_token(signer: TokenSigner, request: RecommendRequest) -> PageToken:
    """The token of a request.

    Raises:
        InvalidRequest: It is damaged, forged, or of another request.
    """
    payload = signer.verify(_KIND, request.page_token, "page_token")
    if not hmac.compare_digest(str(payload["q"]), request_digest(request)):
        raise InvalidRequest([Violation("page_token", "belongs to a request with other fields; repeat all of them")])
    digests = base64.b85decode(payload["h"])
    collapsing = _unpack(payload["d"]) if "d" in payload else ()
    return PageToken(payload["l"], payload["s"], payload["t"], payload["p"], _split(digests), collapsing)


def _pack(ids: tuple[str, ...]) -> str:
    while True:
        packed = zlib.compress("\n".join(ids).encode())
        if len(packed) <= _MAX_IDS_BYTES:
            return base64.b85encode(packed).decode()
        ids = ids[max(len(ids) // 8, 1) :]


def _unpack(packed: str) -> tuple[str, ...]:
    return tuple(zlib.decompress(base64.b85decode(packed)).decode().split("\n"))


def _split(digests: bytes) -> tuple[bytes, ...]:
    return tuple(digests[at : at + _DIGEST_BYTES] for at in range(0, len(digests), _DIGEST_BYTES))
