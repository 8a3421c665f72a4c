"""The methods that the client calls: where each lives, what it takes and gives, and whether it may be repeated.

Almost all may: upserts and deletes are safe to repeat by nature, events by the id that the client gives to those that
have none. What must not be repeated goes over a channel without retries.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Generic, TypeVar

from google.protobuf.message import Message

from zhiyin.encoder.v1 import encoder_service_pb2 as encoder
from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval
from zhiyin_client.targets import Service

RequestT = TypeVar("RequestT", bound=Message)
ResponseT = TypeVar("ResponseT", bound=Message)


@dataclass(frozen=True)
class Method(Generic[RequestT, ResponseT]):
    """One method of a service."""

    service: Service
    name: str
    request: type[RequestT]
    response: type[ResponseT]
    repeatable: bool = True

    @property
    def path(self) -> str:
        """As gRPC names it."""
        return f"/zhiyin.{self.service}.v1.{self.service.title()}Service/{self.name}"

    def once(self) -> Method[RequestT, ResponseT]:
        """The same method, called so that what the server may have begun is not repeated."""
        return replace(self, repeatable=False)

    def on(self, channel: Any, shape: str = "unary_unary") -> Any:
        """The callable of a channel, sync or async."""
        return getattr(channel, shape)(
            self.path, request_serializer=self.request.SerializeToString, response_deserializer=self.response.FromString
        )


EMBED = Method("encoder", "Embed", encoder.EmbedRequest, encoder.EmbedResponse)
CLASSIFY = Method("encoder", "Classify", encoder.ClassifyRequest, encoder.ClassifyResponse)
MODEL_INFO = Method("encoder", "GetModelInfo", encoder.GetModelInfoRequest, encoder.GetModelInfoResponse)

UPSERT_ITEMS = Method("retrieval", "UpsertItems", retrieval.UpsertItemsRequest, retrieval.UpsertItemsResponse)
IMPORT_ITEMS = Method("retrieval", "ImportItems", retrieval.ImportItemsRequest, retrieval.ImportItemsResponse)
DELETE_ITEMS = Method("retrieval", "DeleteItems", retrieval.DeleteItemsRequest, retrieval.DeleteItemsResponse)
GET_ITEMS = Method("retrieval", "GetItems", retrieval.GetItemsRequest, retrieval.GetItemsResponse)
LIST_ITEMS = Method("retrieval", "ListItems", retrieval.ListItemsRequest, retrieval.ListItemsResponse)
SEARCH = Method("retrieval", "Search", retrieval.SearchRequest, retrieval.SearchResponse)
CREATE_CATALOG = Method("retrieval", "CreateCatalog", retrieval.CreateCatalogRequest, retrieval.CreateCatalogResponse)
# A repeat would be told that there is no such catalogue.
DROP_CATALOG = Method("retrieval", "DropCatalog", retrieval.DropCatalogRequest, retrieval.DropCatalogResponse).once()
ITEM_LIMITS = Method("retrieval", "GetLimits", retrieval.GetLimitsRequest, retrieval.GetLimitsResponse)

RECOMMEND = Method("ranking", "Recommend", ranking.RecommendRequest, ranking.RecommendResponse)
SIMILAR_ITEMS = Method("ranking", "SimilarItems", ranking.SimilarItemsRequest, ranking.SimilarItemsResponse)
RERANK = Method("ranking", "Rerank", ranking.RerankRequest, ranking.RerankResponse)
EXPLAIN = Method("ranking", "Explain", ranking.ExplainRequest, ranking.ExplainResponse)
RECORD_EVENTS = Method("ranking", "RecordEvents", ranking.RecordEventsRequest, ranking.RecordEventsResponse)
STREAM_EVENTS = Method("ranking", "StreamEvents", ranking.StreamEventsRequest, ranking.StreamEventsResponse)
UPSERT_USERS = Method("ranking", "UpsertUsers", ranking.UpsertUsersRequest, ranking.UpsertUsersResponse)
GET_USER = Method("ranking", "GetUser", ranking.GetUserRequest, ranking.GetUserResponse)
DELETE_USER = Method("ranking", "DeleteUser", ranking.DeleteUserRequest, ranking.DeleteUserResponse)
PUT_RULE = Method("ranking", "PutRule", ranking.PutRuleRequest, ranking.PutRuleResponse)
LIST_RULES = Method("ranking", "ListRules", ranking.ListRulesRequest, ranking.ListRulesResponse)
DELETE_RULE = Method("ranking", "DeleteRule", ranking.DeleteRuleRequest, ranking.DeleteRuleResponse)
USER_LIMITS = Method("ranking", "GetLimits", ranking.GetLimitsRequest, ranking.GetLimitsResponse)
