"""Calls Zhiyin from Python: `Client` waits, `AsyncClient` awaits; vectors are numpy arrays, errors are one tree.

docs/python_client.md shows how.
"""

from zhiyin.common.v1.filter_pb2 import FieldExists, FieldIn, Filter, FilterList, NumberRange, TimeRange
from zhiyin.common.v1.item_pb2 import AttributeValue, Item
from zhiyin.encoder.v1.encoder_service_pb2 import Label
from zhiyin.ranking.v1.ranking_service_pb2 import (
    AnonymousProfile,
    Event,
    EventType,
    RecommendContext,
    RecommendedItem,
    Rule,
    RuleAction,
    User,
)
from zhiyin_client.aio.client import AsyncClient
from zhiyin_client.bulk.batches import ImportStopped
from zhiyin_client.bulk.progress import ImportProgress, ImportSettings, RejectedRow
from zhiyin_client.channel_options import CLIENT_SERVICE_CONFIG, client_channel_options
from zhiyin_client.consistency import Written
from zhiyin_client.errors import (
    AccessRefused,
    AlreadyExists,
    Conflict,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidRequest,
    LimitReached,
    NotFound,
    Overloaded,
    ServiceFault,
    SpaceMismatch,
    Unavailable,
    ZhiyinError,
)
from zhiyin_client.refusals import Refusal, Resource, Violation
from zhiyin_client.searches import Hits, Query, SearchResult
from zhiyin_client.sync.client import Client
from zhiyin_client.targets import LOCAL, Targets, Tls
from zhiyin_client.texts import Embeddings
from zhiyin_client.values import attribute, attributes, timestamp
from zhiyin_client.vectors import from_matrix, to_embedding, to_matrix

__all__ = [
    "CLIENT_SERVICE_CONFIG",
    "LOCAL",
    "AccessRefused",
    "AlreadyExists",
    "AnonymousProfile",
    "AsyncClient",
    "AttributeValue",
    "Client",
    "Conflict",
    "DeadlineExceeded",
    "Embeddings",
    "Event",
    "EventType",
    "FailedPrecondition",
    "FieldExists",
    "FieldIn",
    "Filter",
    "FilterList",
    "Hits",
    "ImportProgress",
    "ImportSettings",
    "ImportStopped",
    "InvalidRequest",
    "Item",
    "Label",
    "LimitReached",
    "NotFound",
    "NumberRange",
    "Overloaded",
    "Query",
    "RecommendContext",
    "RecommendedItem",
    "Refusal",
    "RejectedRow",
    "Resource",
    "Rule",
    "RuleAction",
    "SearchResult",
    "ServiceFault",
    "SpaceMismatch",
    "Targets",
    "TimeRange",
    "Tls",
    "Unavailable",
    "User",
    "Violation",
    "Written",
    "ZhiyinError",
    "attribute",
    "attributes",
    "client_channel_options",
    "from_matrix",
    "timestamp",
    "to_embedding",
    "to_matrix",
]
