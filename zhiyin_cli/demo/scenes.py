"""What the demonstration shows, one scene a function, each over the public API."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich import box
from rich.console import Console
from rich.rule import Rule
from rich.table import Table
from rich.text import Text

from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb2
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as ranking_grpc
from zhiyin_cli.demo.variety import distinct_categories, unlike_pairs
from zhiyin_cli.result_tables import degraded_lines, recommendation_table

_CATALOG = "default"
_DEADLINE_S = 20.0
_VISITOR = "demo-visitor"


@dataclass(frozen=True)
class Cast:
    """Who appears, in one language."""

    locale: str
    users: tuple[str, ...]
    newcomer: str
    """A user of the catalogue who has a profile and no events."""
    visitor_profile: str
    """What a user made for this run says about himself or herself."""
    visitor_finishes: tuple[str, str]
    """The item that the visitor then watches to the end: id and title."""
    varied_user: str
    """Whose list is shown at three settings of diversity."""


ENGLISH = Cast(
    locale="en",
    users=("en-alice", "en-ben", "en-hugo"),
    newcomer="en-newcomer",
    visitor_profile="I bake bread at home and I am always after good coffee",
    visitor_finishes=("video-spirited-away", "Spirited Away"),
    varied_user="en-erin",
)
CHINESE = Cast(
    locale="zh",
    users=("zh-lin", "zh-chen", "zh-wang"),
    newcomer="zh-newcomer",
    visitor_profile="喜欢在家做饭，也爱喝茶",
    visitor_finishes=("video-nezha-1", "哪吒之魔童降世"),
    varied_user="zh-tang",
)


class Demonstration:
    """Plays the scenes for a cast."""

    def __init__(self, stub: ranking_grpc.RankingServiceStub, console: Console, cast: Cast) -> None:
        self._stub = stub
        self._console = console
        self._cast = cast

    def known_users(self) -> None:
        """Lists for users with a history."""
        self._scene("Users with a history", "What they say about themselves and what they did, in one list each.")
        for user in self._cast.users:
            self._print_list(f"{user}: {self._profile(user)}", self._recommend(user).items)

    def newcomer(self) -> None:
        """A list for a user nobody has seen do anything."""
        self._scene(
            "A newcomer",
            "No event yet: the list comes from the words of the profile, and from what is popular and new.",
        )
        user = self._cast.newcomer
        self._print_list(f"{user}: {self._profile(user)}", self._recommend(user).items)

    def list_after_an_event(self) -> None:
        """One list before and right after an event, which it must reflect; then the user is erased again."""
        item, title = self._cast.visitor_finishes
        self._scene(
            "One event changes the list", f"A new user is made and then finishes “{title}”; + marks what is new."
        )
        visitor = ranking_pb2.User(id=_VISITOR, profile=self._cast.visitor_profile)
        made = self._stub.UpsertUsers(
            ranking_pb2.UpsertUsersRequest(catalog=_CATALOG, users=[visitor]), timeout=_DEADLINE_S
        )
        try:
            before = self._recommend(_VISITOR, token=made.consistency_token).items
            recorded = self._stub.RecordEvents(
                ranking_pb2.RecordEventsRequest(
                    catalog=_CATALOG,
                    events=[ranking_pb2.Event(user_id=_VISITOR, type=ranking_pb2.EVENT_TYPE_FINISH, item_id=item)],
                ),
                timeout=_DEADLINE_S,
            )
            after = self._recommend(_VISITOR, token=recorded.consistency_token).items
        finally:
            self._stub.DeleteUser(
                ranking_pb2.DeleteUserRequest(catalog=_CATALOG, user_id=_VISITOR), timeout=_DEADLINE_S
            )
        known = {entry.item.id for entry in before}
        new = [entry.item.id for entry in after if entry.item.id not in known]
        self._print_list(f"before: {self._cast.visitor_profile}", before)
        self._print_list(f"right after finishing “{title}”", after, new_ids=new)
        self._say(f"{len(new)} of {len(after)} items are new. The user and the event have been erased again.")

    def diversity(self) -> None:
        """The same list at three settings of the knob, with figures."""
        user = self._cast.varied_user
        self._scene("One knob for diversity", f"{user}: {self._profile(user)}")
        table = Table(box=box.SIMPLE_HEAD, title_justify="left")
        lists = {setting: self._recommend(user, diversity=setting).items for setting in (0.0, 0.5, 1.0)}
        for setting in lists:
            table.add_column(f"diversity {setting:g}", overflow="fold", max_width=42)
        for row in zip(*lists.values(), strict=False):
            table.add_row(*(Text(f"{entry.item.title} [{'/'.join(entry.item.categories)}]") for entry in row))
        self._console.print(table)
        for setting, entries in lists.items():
            items = [entry.item for entry in entries]
            self._say(
                f"diversity {setting:g}: {distinct_categories(items)} different categories in {len(items)} items, "
                f"{unlike_pairs(items):.0%} of the pairs have no category in common"
            )

    def _recommend(
        self, user: str, *, token: str = "", diversity: float | None = None
    ) -> ranking_pb2.RecommendResponse:
        request = ranking_pb2.RecommendRequest(
            catalog=_CATALOG,
            user_id=user,
            page_size=8,
            consistency_token=token,
            context=ranking_pb2.RecommendContext(locale=self._cast.locale),
        )
        if diversity is not None:
            request.diversity = diversity
        response: ranking_pb2.RecommendResponse = self._stub.Recommend(request, timeout=_DEADLINE_S)
        for line in degraded_lines(response.degraded):
            self._console.print(Text(line, style="yellow"))
        return response

    def _profile(self, user: str) -> str:
        answer = self._stub.GetUser(ranking_pb2.GetUserRequest(catalog=_CATALOG, user_id=user), timeout=_DEADLINE_S)
        return f"«{answer.user.profile}»"

    def _print_list(
        self, title: str, entries: Sequence[ranking_pb2.RecommendedItem], new_ids: Sequence[str] = ()
    ) -> None:
        self._console.print(recommendation_table(title, entries, new_ids, width=self._console.width))

    def _scene(self, title: str, explanation: str) -> None:
        self._console.print(Rule(Text(title, style="bold"), align="left"))
        self._say(explanation)

    def _say(self, text: str) -> None:
        self._console.print(Text(text))
