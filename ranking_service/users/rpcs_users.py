"""The RPCs that write and read users and events."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from ranking_service.users import user_conversions as conversions
from ranking_service.users import user_metrics
from ranking_service.users.event_stream import acknowledged_in_order
from ranking_service.users.user_side import UserSide
from service_runtime.errors import NotFound
from service_runtime.grpc_types import ServicerContext
from zhiyin.ranking.v1 import ranking_service_pb2 as pb

_EVENTS_PER_EXPORT_PART = 500


class UserRpcs:
    """The part of the servicer that is about users and events.

    Args:
        users: Everything behind these RPCs.
        forget_elsewhere: Erases what is kept of a user beside that, by catalogue and id.
    """

    def __init__(self, users: UserSide, forget_elsewhere: Callable[[str, str], Awaitable[None]] | None = None) -> None:
        self._users, self._forget_elsewhere = users, forget_elsewhere

    async def RecordEvents(self, request: pb.RecordEventsRequest, context: ServicerContext) -> pb.RecordEventsResponse:
        """Records what users did."""
        return await self._record(request)

    async def StreamEvents(
        self, request_iterator: AsyncIterator[pb.StreamEventsRequest], context: ServicerContext
    ) -> AsyncIterator[pb.StreamEventsResponse]:
        """Records many batches over one stream."""
        async for response in acknowledged_in_order(request_iterator, self._record):
            yield response

    async def UpsertUsers(self, request: pb.UpsertUsersRequest, context: ServicerContext) -> pb.UpsertUsersResponse:
        """Writes users, all or none."""
        settings = self._users.settings
        writes = await asyncio.to_thread(conversions.users_from_proto, request, settings.max_users_per_batch)
        change = await self._users.upsert(request.catalog, writes, request.validate_only, request.ByteSize())
        return pb.UpsertUsersResponse(
            consistency_token=self._users.token(request.catalog, change.after), revisions=change.revisions
        )

    async def GetUser(self, request: pb.GetUserRequest, context: ServicerContext) -> pb.GetUserResponse:
        """What is stored about a user, without the events."""
        conversions.check_user_request(request.catalog, request.user_id)
        user = await self._users.stored_user(request.catalog, request.user_id)
        if user is None:
            raise NotFound("user", request.user_id)
        return pb.GetUserResponse(user=conversions.user_to_proto(user))

    async def DeleteUser(self, request: pb.DeleteUserRequest, context: ServicerContext) -> pb.DeleteUserResponse:
        """Erases a user."""
        conversions.check_user_request(request.catalog, request.user_id)
        change = await self._users.erase(request.catalog, request.user_id)
        if self._forget_elsewhere is not None:
            await self._forget_elsewhere(request.catalog, request.user_id)
        return pb.DeleteUserResponse(deleted_event_count=change.deleted_events, existed=change.existed)

    async def ExportUser(
        self, request: pb.ExportUserRequest, context: ServicerContext
    ) -> AsyncIterator[pb.ExportUserResponse]:
        """Everything stored about a user."""
        conversions.check_user_request(request.catalog, request.user_id)
        user = await self._users.stored_user(request.catalog, request.user_id)
        if user is None:
            raise NotFound("user", request.user_id)
        yield pb.ExportUserResponse(user=conversions.user_to_proto(user))
        async for page in self._users.events_of(request.catalog, request.user_id, _EVENTS_PER_EXPORT_PART):
            part = pb.ExportUserResponse()
            part.events.events.extend(conversions.event_to_proto(event) for event in page)
            yield part

    async def _record(self, request: pb.RecordEventsRequest) -> pb.RecordEventsResponse:
        users = self._users
        events = await asyncio.to_thread(
            conversions.events_from_proto,
            request.catalog,
            request.events,
            users.settings.max_events_per_batch,
            users.signer,
        )
        newest_us = max((event.time_us for event in events), default=time.time_ns() // 1000)
        change = await users.record(request.catalog, events, request.ByteSize())
        user_metrics.EVENT_LAG.observe(max(time.time() - newest_us / 1e6, 0.0))
        user_metrics.EVENTS_DUPLICATE.inc(change.duplicates)
        user_metrics.EVENTS_RECORDED.inc(len(events) - change.duplicates)
        return pb.RecordEventsResponse(
            consistency_token=users.token(request.catalog, change.after),
            recorded_count=len(events) - change.duplicates,
            duplicate_count=change.duplicates,
            sequence=change.after,
        )
