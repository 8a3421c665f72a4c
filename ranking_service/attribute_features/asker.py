"""Whoever asks, as far as attribute features read it: the same at a request and in a training."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from ranking_service.attribute_features.feature_spec import OF_USER
from service_runtime.attributes import AttributeScalar

if TYPE_CHECKING:  # a taste holds what reads it
    from ranking_service.taste import Taste

_DAYPART_H = 4


@dataclass(frozen=True, slots=True)
class Asker:
    """One request's user and circumstances.

    Attributes:
        now: Unix seconds of the moment the list is for.
        liked: Items acted on positively with their weights, latest first.
        attributes: Of the user, or of somebody described in the request.
        locale: BCP 47 tag; empty: unknown, as are the next two.
    """

    now: float = 0.0
    liked: tuple[tuple[str, float], ...] = ()
    attributes: Mapping[str, AttributeScalar] = field(default_factory=dict)
    locale: str = ""
    device: str = ""
    place: str = ""

    @property
    def moment(self) -> datetime:
        """`now` as a calendar has it, in UTC: nobody tells the service where the sun stands."""
        return datetime.fromtimestamp(self.now, UTC)

    def side(self, name: str) -> AttributeScalar | None:
        """The value of a side by its name; None where nothing is known."""
        if name.startswith(OF_USER):
            return self.attributes.get(name.removeprefix(OF_USER))
        return circumstances(self.now, self.locale, self.device, self.place)[name] or None


NOBODY = Asker()


def circumstances(now: float, locale: str, device: str, place: str) -> dict[str, str]:
    """The sides of a request, by name; empty where not told."""
    hour = datetime.fromtimestamp(now, UTC).hour
    return {
        "context.device": device,
        "context.place": place,
        "context.language": locale.split("-", 1)[0].lower(),
        "context.daypart": f"{hour // _DAYPART_H * _DAYPART_H:02d}h",
    }


def asker_of(taste: Taste) -> Asker:
    """Whose taste it is."""
    query = taste.query
    attributes = query.anonymous.attributes if query.anonymous is not None else taste.state.attributes
    liked = tuple((anchor.item_id, anchor.weight) for anchor in taste.likes)
    return Asker(query.now, liked, attributes, query.locale, query.device, query.place)
