"""Calls about users and what they did: ranking."""

from __future__ import annotations

from collections.abc import Iterable

from zhiyin.ranking.v1 import ranking_service_pb2 as ranking
from zhiyin_client import methods
from zhiyin_client.sync.calls import Calls
from zhiyin_client.values import mask, with_ids


class UserCalls(Calls):
    """Users and events. All raise ZhiyinError."""

    def record_events(
        self, events: ranking.Event | Iterable[ranking.Event], *, timeout: float | None = None
    ) -> ranking.RecordEventsResponse:
        """Records what users did: all or none, durable when answered. For many events: `import_events`.

        Events without an id are given one, so that none counts twice however often the call is repeated on its way. An
        id of the caller's own also holds when the caller repeats.
        """
        several = [events] if isinstance(events, ranking.Event) else events
        request = ranking.RecordEventsRequest(catalog=self.catalog, events=with_ids(several))
        return self._call(methods.RECORD_EVENTS, request, timeout)

    def upsert_users(
        self,
        users: ranking.User | Iterable[ranking.User],
        *,
        update_mask: Iterable[str] | None = None,
        check_revision: bool = False,
        validate_only: bool = False,
        timeout: float | None = None,
    ) -> ranking.UpsertUsersResponse:
        """Writes users: all or none.

        With `check_revision` each user's `revision` must be that of the stored one, else Conflict; such a call is not
        repeated by itself, since a write whose answer was lost would conflict with its repeat.
        """
        request = ranking.UpsertUsersRequest(
            catalog=self.catalog,
            users=[users] if isinstance(users, ranking.User) else users,
            update_mask=mask(update_mask),
            check_revision=check_revision,
            validate_only=validate_only,
        )
        method = methods.UPSERT_USERS.once() if check_revision else methods.UPSERT_USERS
        return self._call(method, request, timeout)

    def get_user(self, user_id: str, *, timeout: float | None = None) -> ranking.User:
        """What is stored about a user, without the events. NotFound when nothing is."""
        request = ranking.GetUserRequest(catalog=self.catalog, user_id=user_id)
        return (self._call(methods.GET_USER, request, timeout)).user

    def delete_user(self, user_id: str, *, timeout: float | None = None) -> ranking.DeleteUserResponse:
        """Erases a user with all events."""
        request = ranking.DeleteUserRequest(catalog=self.catalog, user_id=user_id)
        return self._call(methods.DELETE_USER, request, timeout)
