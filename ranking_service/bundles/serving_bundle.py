"""What a bundle brings to a list. A list is made with one of them from beginning to end."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ranking_service.scorers.scorer import Scorer
from ranking_service.sequence_model import SequenceModel

BUILTIN = "builtin"


@dataclass(frozen=True)
class ServingBundle:
    """A bundle in memory.

    Attributes:
        id: `builtin` for none.
        scorer: What makes one score of all opinions.
        sequence: The sequence model, where there is one.
    """

    id: str
    scorer: Scorer
    sequence: SequenceModel | None = None


BundleOf = Callable[[str], ServingBundle]
"""The bundle that serves a catalogue at this moment. May read files: not for the event loop."""
