"""One served page as it is kept: what was asked, what was answered, and what stood behind each place.

The messages are the contract's own, so that they grow with it; `zlib` takes about two thirds off.
"""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from google.protobuf.message import Message

from zhiyin.ranking.v1 import ranking_service_pb2 as pb2

_LENGTH = struct.Struct("<I")
# Fast: the stronger levels took thrice the time for a tenth of the bytes.
_LEVEL = 1


@dataclass(frozen=True, slots=True)
class PageContent:
    """What is kept of a page.

    Attributes:
        request: As it came, without its consistency token; empty for SimilarItems.
        response: As it was sent; of items the id, title and categories, always with sources and reasons, never with
            attribution tokens, which are made of the rest.
        places: Of each item of the response what Explain adds: place before diversity, features, propensity, rules.
        seed: Of everything random in the list.
        now: The moment of the list, Unix seconds.
        after: Digests of what earlier pages had shown when the list was made, if it was made anew.
        after_ids: Likewise: ids of those that a COLLAPSE rule was about.
        collapsed: Ids of the best items that such a rule dropped from the list.
    """

    request: pb2.RecommendRequest
    response: pb2.RecommendResponse
    places: Sequence[pb2.ExplainResponse]
    seed: int
    now: float
    after: Sequence[bytes] = ()
    after_ids: Sequence[str] = ()
    collapsed: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class PageRecord:
    """A page as it is kept.

    Attributes:
        first_rank: Of its items, from 1.
        user_id: Of whom the list was for; empty: for somebody described, or nobody in particular.
        user_key: The store's number for the user at that moment; 0: unknown then.
        time_us: When it was served, Unix microseconds.
        payload: The packed content.
    """

    catalog: str
    list_id: str
    first_rank: int
    user_id: str
    user_key: int
    time_us: int
    payload: bytes


def pack(content: PageContent) -> bytes:
    """The bytes of a page."""
    facts = {
        "seed": content.seed,
        "now": content.now,
        "after": [digest.hex() for digest in content.after],
        "after_ids": list(content.after_ids),
        "collapsed": list(content.collapsed),
    }
    messages: list[Message] = [content.request, content.response, *content.places]
    parts = [json.dumps(facts).encode(), *(message.SerializeToString() for message in messages)]
    return zlib.compress(b"".join(_LENGTH.pack(len(part)) + part for part in parts), _LEVEL)


def unpack(payload: bytes) -> PageContent:
    """The content of a page."""
    packed, parts, at = zlib.decompress(payload), [], 0
    while at < len(packed):
        (length,) = _LENGTH.unpack_from(packed, at)
        at += _LENGTH.size + length
        parts.append(packed[at - length : at])
    facts = json.loads(parts[0])
    return PageContent(
        request=pb2.RecommendRequest.FromString(parts[1]),
        response=pb2.RecommendResponse.FromString(parts[2]),
        places=[pb2.ExplainResponse.FromString(part) for part in parts[3:]],
        seed=facts["seed"],
        now=facts["now"],
        after=tuple(bytes.fromhex(digest) for digest in facts["after"]),
        after_ids=tuple(facts["after_ids"]),
        collapsed=tuple(facts["collapsed"]),
    )
