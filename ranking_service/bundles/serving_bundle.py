"""What a bundle brings to a list. A list is made with one of them from beginning to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from ranking_service.attribute_features.attribute_features import AttributeFeatures
from ranking_service.attribute_features.item_facts import ItemFacts
from ranking_service.diversity.knob import HOUSE_KNOB, Knob
from ranking_service.learned_sources.learned_sources import NOTHING_LEARNED, LearnedSources
from ranking_service.query import Query
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
        attributes: What its ranker reads of attributes and circumstances; None: nothing.
    """

    id: str
    scorer: Scorer
    sequence: SequenceModel | None = None
    learned: LearnedSources = NOTHING_LEARNED
    knob: Knob = HOUSE_KNOB
    attributes: AttributeFeatures | None = None

    def facts_for(self, query: Query) -> ItemFacts | None:
        """What to read of the items that the user liked; None where no ranker will be asked."""
        return None if self.attributes is None or query.text else self.attributes.items

    def lent_to(self, taste: Taste) -> Taste:
        """The taste with what sources and diversity need."""
        read = self.attributes if taste.likes and not taste.query.text else None
        return replace(taste, sequence=self.sequence, learned=self.learned, attributes=read, knob=self.knob)


BundleOf = Callable[[str], ServingBundle]
"""The bundle that serves a catalogue at this moment. May read files: not for the event loop."""
