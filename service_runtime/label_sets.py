"""Labels of a deployment's own, as the encoder's Classify takes them, and its answers checked."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from service_runtime.errors import DependencyUnavailable
from zhiyin.encoder.v1 import encoder_service_pb2 as pb

# What the encoder takes in one request (encoder_service/classify_conversions.py); files are held to it at start.
MAX_LABELS, MAX_DESCRIPTIONS, MAX_EXAMPLES, MAX_LABEL_TEXTS = 256, 16, 64, 2048


@dataclass(frozen=True, slots=True)
class Label:
    """A label in words.

    Attributes:
        name: Unique in its set.
        descriptions: 1 to 16.
        examples: At most 64 texts that have it.
        threshold: In (0, 1]; below this probability a text does not count as having it.
    """

    name: str
    descriptions: tuple[str, ...]
    examples: tuple[str, ...]
    threshold: float


@dataclass(frozen=True, slots=True)
class LabelSet:
    """Labels of which one is right.

    Attributes:
        labels: Two or more.
        version: Changes with anything that can change what a text is taken for: names, words, thresholds.
    """

    labels: tuple[Label, ...]
    version: str = field(init=False)

    def __post_init__(self) -> None:
        words = [(each.name, each.descriptions, each.examples, each.threshold) for each in self.labels]
        digest = hashlib.blake2b(json.dumps(words, ensure_ascii=False).encode(), digest_size=8)
        object.__setattr__(self, "version", digest.hexdigest())

    def question(self, texts: Sequence[str]) -> pb.ClassifyRequest:
        """The request that asks for the probabilities of all labels."""
        labels = [
            pb.Label(id=each.name, descriptions=each.descriptions, examples=each.examples) for each in self.labels
        ]
        return pb.ClassifyRequest(texts=texts, labels=labels, max_labels=len(labels))

    def read(self, reply: pb.ClassifyResponse, texts: int) -> list[dict[str, float]]:
        """The probability of every label for each of `texts` texts.

        Raises:
            DependencyUnavailable: The answer is none to this question.
        """
        names = {each.name for each in self.labels}
        found = [{score.id: score.probability for score in entry.labels} for entry in reply.classifications]
        if len(found) != texts or any(set(each) != names for each in found):
            raise DependencyUnavailable("encoder", "sent labels that it was not asked for, or left some out")
        if not all(math.isfinite(p) and 0.0 <= p <= 1.0 + 1e-6 for each in found for p in each.values()):
            raise DependencyUnavailable("encoder", "sent probabilities outside of 0 to 1")
        return found

    def reached(self, probabilities: Mapping[str, float]) -> list[tuple[str, float]]:
        """The labels that reach their threshold with their probabilities, most probable first, equals by name."""
        reached = [
            (each.name, probabilities[each.name]) for each in self.labels if probabilities[each.name] >= each.threshold
        ]
        return sorted(reached, key=lambda entry: (-entry[1], entry[0]))
