"""What a deployment calls the things that people are up to, and what each does to a list."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ranking_service.candidate import SourceKind
from ranking_service.query import DEFAULT_DIVERSITY, Query
from service_runtime.label_sets import LabelSet


@dataclass(frozen=True, slots=True)
class Intent:
    """What one label does.

    Attributes:
        factors: Of the weight of each source, in [0, 10]; sources without one keep theirs.
        diversity: For requests that set none, in [0, 1]; None: the usual one.
        exploration: Likewise.
    """

    factors: Mapping[SourceKind, float] = field(default_factory=dict)
    diversity: float | None = None
    exploration: float | None = None


@dataclass(frozen=True, slots=True)
class IntentSet:
    """The labels of a catalogue and what each does, by its name."""

    labels: LabelSet
    intents: Mapping[str, Intent]


@dataclass(frozen=True, slots=True)
class IntentBook:
    """The labels of all catalogues.

    Attributes:
        everywhere: For catalogues that have none of their own; None: those have none.
        own: By catalogue.
    """

    everywhere: IntentSet | None = None
    own: Mapping[str, IntentSet] = field(default_factory=dict)

    def of(self, catalog: str) -> IntentSet | None:
        """The labels of a catalogue."""
        return self.own.get(catalog, self.everywhere)

    def sets(self) -> list[IntentSet]:
        """All there are."""
        return [*self.own.values(), *([self.everywhere] if self.everywhere is not None else [])]


@dataclass(frozen=True, slots=True)
class Understood:
    """What somebody was understood to be up to.

    Attributes:
        labels: Those that reached their thresholds, most probable first, with what their probabilities weigh. What is
            left of 1 is unknown and moves nothing.
        factors: Of the sources' weights, all labels together; a source that is left out keeps its weight.
        diversity: For requests that set none; None: the usual one.
        exploration: Likewise.
    """

    labels: tuple[tuple[str, float], ...] = ()
    factors: Mapping[SourceKind, float] = field(default_factory=dict)
    diversity: float | None = None
    exploration: float | None = None

    def weights(
        self, weights: Mapping[SourceKind, float], house: Mapping[SourceKind, float]
    ) -> Mapping[SourceKind, float]:
        """The weights as they count now.

        A factor below 1 takes from the weight of a source. One above 1 adds to it, and where the house trusts the
        source more than `weights` do, as much as it would add to the weight of the house: a training may have found
        that the newest items help nobody, and yet whoever asks for what is new wants them.

        Args:
            weights: Of the sources; not learned ones, or learned ones.
            house: Those of the house, on the same scale.
        """
        moved = dict(weights)
        for kind, factor in self.factors.items():
            base = weights.get(kind, 0.0)
            trusted = base if factor < 1.0 else max(base, house.get(kind, 0.0))
            moved[kind] = base + (factor - 1.0) * trusted
        return moved

    def asked(self, query: Query) -> Query:
        """The query with what it leaves open."""
        if self.diversity is not None and "diversity" in query.left_open:
            query = replace(query, diversity=self.diversity)
        if self.exploration is not None and "exploration" in query.left_open:
            query = replace(query, exploration=self.exploration)
        return query


NOTHING_UNDERSTOOD = Understood()


def understood(intents: IntentSet, probabilities: Mapping[str, float], share: float = 1.0) -> Understood:
    """What probabilities of labels come to.

    The factor of source s is p(unknown) + sum over labels l of p(l) * factor(l, s).

    Args:
        intents: The labels.
        probabilities: Of each of them.
        share: In [0, 1]: what time has left of the words.
    """
    labels = tuple((label, share * probability) for label, probability in intents.labels.reached(probabilities))
    if not labels:
        return NOTHING_UNDERSTOOD
    each = [(intents.intents[label], probability) for label, probability in labels]
    kinds = {kind for intent, _ in each for kind in intent.factors}
    factors = {kind: 1.0 + sum(p * (intent.factors.get(kind, 1.0) - 1.0) for intent, p in each) for kind in kinds}
    return Understood(
        labels,
        {kind: max(factor, 0.0) for kind, factor in factors.items() if abs(factor - 1.0) > 1e-9},
        _between(DEFAULT_DIVERSITY, [(intent.diversity, p) for intent, p in each]),
        _between(0.0, [(intent.exploration, p) for intent, p in each]),
    )


def _between(usual: float, wanted: list[tuple[float | None, float]]) -> float | None:
    """The usual value moved towards what labels want, by their probabilities; None: none wants anything."""
    if all(value is None for value, _ in wanted):
        return None
    moved = usual + sum(p * (value - usual) for value, p in wanted if value is not None)
    return min(max(moved, 0.0), 1.0)
