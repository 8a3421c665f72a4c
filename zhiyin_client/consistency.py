"""Reading one's own writes: what a session has written, told to the calls that come after.

Tokens are opaque: the latest one wins. So a session belongs to one user, or to one request of a web server, whose calls
come one after another.
"""

from __future__ import annotations

from dataclasses import dataclass

from google.protobuf.message import Message

from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval

_WITH_TOKEN = (
    ranking.RecordEventsResponse,
    ranking.UpsertUsersResponse,
    ranking.PutRuleResponse,
    ranking.DeleteRuleResponse,
    ranking.RecommendResponse,
)
_WITH_SEQUENCE = (retrieval.UpsertItemsResponse, retrieval.DeleteItemsResponse)


@dataclass
class Written:
    """What a session has seen and written. Keep it (in a cookie, say) to go on with the session elsewhere."""

    consistency_token: str = ""
    """Of events, users and rules; opaque."""
    sequence: int = 0
    """Of items."""

    def note(self, response: Message) -> None:
        """Remembers what an answer says of its write."""
        if isinstance(response, _WITH_TOKEN):
            self.consistency_token = response.consistency_token or self.consistency_token
        elif isinstance(response, _WITH_SEQUENCE):
            self.sequence = max(self.sequence, response.sequence)
        elif isinstance(response, (ranking.StreamEventsResponse, retrieval.ImportItemsResponse)):
            kind = response.WhichOneof("result")
            if kind in ("recorded", "written"):
                self.note(getattr(response, kind))

    def ask_for_it(self, request: Message) -> None:
        """Makes a request wait for what was written, where it does not say itself what to wait for."""
        if isinstance(request, ranking.RecommendRequest):
            request.consistency_token = request.consistency_token or self.consistency_token
        elif isinstance(request, retrieval.SearchRequest) and self.sequence and not request.HasField("min_sequence"):
            request.min_sequence = self.sequence
