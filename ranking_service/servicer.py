"""The gRPC servicer: each RPC lives with its subject."""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from ranking_service import conversions
from ranking_service.bundles.bundle_store import BundleStore
from ranking_service.bundles.rpcs_bundles import BundleRpcs
from ranking_service.clients import RetrievalClient
from ranking_service.rpcs_explain import ExplainRpcs
from ranking_service.rpcs_recommend import RecommendRpcs
from ranking_service.rules.rpcs_rules import RuleRpcs
from ranking_service.served_lists.served_list_log import ServedListLog
from ranking_service.serving import Serving
from ranking_service.settings import RankingSettings
from ranking_service.users.rpcs_users import UserRpcs
from ranking_service.users.user_side import UserSide
from zhiyin.ranking.v1 import ranking_service_pb2 as pb2
from zhiyin.ranking.v1.ranking_service_pb2_grpc import RankingServiceServicer


class RankingServicer(UserRpcs, RecommendRpcs, ExplainRpcs, BundleRpcs, RuleRpcs, RankingServiceServicer):
    """RankingService over the user side and the recommendation."""

    def __init__(
        self,
        user_side: UserSide,
        serving: Serving,
        bundles: BundleStore,
        retrieval: RetrievalClient,
        served_lists: ServedListLog,
        settings: RankingSettings,
    ) -> None:
        super().__init__(user_side, self._forget_lists)
        self.user_side, self.serving, self.settings = user_side, serving, settings
        self.bundles, self.retrieval, self.signer = bundles, retrieval, serving.signer
        self.served_lists, self.rules_of = served_lists, user_side.rules.books.of

    async def GetLimits(self, request: pb2.GetLimitsRequest, context: object) -> pb2.GetLimitsResponse:
        """What this server accepts."""
        settings = self.settings
        deadline = Duration()
        deadline.FromNanoseconds(int(settings.default_deadline_s * 1e9))
        return pb2.GetLimitsResponse(
            max_events_per_batch=settings.max_events_per_batch,
            max_users_per_batch=settings.max_users_per_batch,
            max_message_bytes=settings.max_message_bytes,
            max_queued_bytes=settings.max_queued_bytes,
            max_page_size=conversions.MAX_PAGE_SIZE,
            max_rerank_candidates=conversions.MAX_RERANK_CANDIDATES,
            max_list_length=settings.max_list_length,
            default_deadline=deadline,
            max_rules=settings.max_rules,
        )

    async def _forget_lists(self, catalog: str, user_id: str) -> None:
        """Erases the lists that were served to a user."""
        self.serving.store.forget(catalog, user_id)
        await self.served_lists.erase(catalog, user_id)
