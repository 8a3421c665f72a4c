"""What a bundle brings to a list. A list is made with one of them from beginning to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ranking_service.diversity.knob import HOUSE_KNOB, Knob
from ranking_service.learned_sources.learned_sources import NOTHING_LEARNED, LearnedSources
from ranking_service.scorers.scorer import Scorer
from ranking_service.sequence_model import SequenceModel
from ranking_service.taste import Taste

BUILTIN = "builtin"


@dataclass(frozen=True)
class ServingBundle:
    """A bundle in memory.

    Attributes:
        id: `builtin` for none.
        scorer: What makes one score of all opinions.
        sequence: The sequence model, where there is one.
        learned: What else sources work with.
        knob: What the default diversity stands for.
    """

    id: str
    scorer: Scorer
    sequence: SequenceModel | None = None
    learned: LearnedSources = NOTHING_LEARNED
    knob: Knob = HOUSE_KNOB

    def lent_to(self, taste: Taste) -> Taste:
        """The taste with what sources and diversity need."""
        return replace(taste, sequence=self.sequence, learned=self.learned, knob=self.knob)


BundleOf = Callable[[str], ServingBundle]
"""The bundle that serves a catalogue at this moment. May read files: not for the event loop."""
