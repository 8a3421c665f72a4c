"""Classify requests checked, answers built."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder_service.classification import LabelClassifier, LabelVectors, fit_labels
from encoder_service.conversions import Limits, check_texts
from encoder_service.vector_cache import EncodedText
from service_runtime.validation import Violations
from zhiyin.encoder.v1 import encoder_service_pb2 as pb

MAX_LABELS = 256
MAX_DESCRIPTIONS = 16
MAX_EXAMPLES = 64
# Descriptions and examples together: what is not in the cache is computed while the caller waits.
MAX_LABEL_TEXTS = 2048
# Scores of an answer: with ids of 256 bytes this stays below 3 MiB.
MAX_SCORES = 10_000
_DEFAULT_LISTED = 10


@dataclass(frozen=True)
class LabelTexts:
    """A label as asked for.

    Attributes:
        id: The caller's.
        descriptions: Distinct, 1 or more.
        examples: Distinct.
    """

    id: str
    descriptions: list[str]
    examples: list[str]


@dataclass(frozen=True)
class Question:
    """A valid Classify request.

    Attributes:
        texts: To be classified.
        labels: Two or more.
        labels_key: A hash of the labels with all their texts.
        min_probability: In [0, 1].
        max_listed: Labels to name for each text.
    """

    texts: list[str]
    labels: list[LabelTexts]
    labels_key: bytes
    min_probability: float
    max_listed: int

    def label_texts(self) -> list[str]:
        """Label by label its descriptions and its examples."""
        return [text for label in self.labels for text in (*label.descriptions, *label.examples)]


def read_question(request: pb.ClassifyRequest, limits: Limits) -> Question:
    """Checks a request.

    Raises:
        InvalidRequest: With everything that is wrong.
    """
    violations = Violations()
    check_texts(violations, "texts", request.texts, 1, limits.max_texts, limits.max_text_bytes)
    _check_labels(violations, request.labels, limits.max_text_bytes)
    if request.HasField("min_probability"):
        violations.check_range("min_probability", request.min_probability, 0.0, 1.0)
    listed = _DEFAULT_LISTED
    if request.HasField("max_labels"):
        # More than there are labels is no more than all of them.
        listed = min(request.max_labels, len(request.labels))
        if request.max_labels == 0:
            violations.add("max_labels", "is 0; ask for at least 1, or leave it unset")
        elif len(request.texts) * listed > MAX_SCORES:
            violations.add(
                "max_labels", f"times the texts makes {len(request.texts) * listed}; at most {MAX_SCORES} are allowed"
            )
    violations.raise_if_any()
    labels = [
        LabelTexts(label.id, list(dict.fromkeys(label.descriptions)), list(dict.fromkeys(label.examples)))
        for label in request.labels
    ]
    return Question(list(request.texts), labels, _key(labels), request.min_probability, listed)


def _key(labels: Sequence[LabelTexts]) -> bytes:
    # Ids are no part of what is fitted. JSON keeps every text apart from the next.
    texts = json.dumps([(label.descriptions, label.examples) for label in labels], ensure_ascii=False)
    return hashlib.blake2b(texts.encode(), digest_size=16).digest()


def _check_labels(violations: Violations, labels: Sequence[pb.Label], max_text_bytes: int) -> None:
    violations.check_count("labels", len(labels), 2, MAX_LABELS)
    texts = sum(len(label.descriptions) + len(label.examples) for label in labels)
    if texts > MAX_LABEL_TEXTS:
        violations.add(
            "labels", f"have {texts} descriptions and examples in all; at most {MAX_LABEL_TEXTS} are allowed"
        )
    seen: set[str] = set()
    for i, label in enumerate(labels[:MAX_LABELS]):
        field = f"labels[{i}]"
        violations.check_id(f"{field}.id", label.id)
        if label.id and label.id in seen:
            violations.add(f"{field}.id", "is the id of an earlier label")
        seen.add(label.id)
        check_texts(violations, f"{field}.descriptions", label.descriptions, 1, MAX_DESCRIPTIONS, max_text_bytes)
        check_texts(violations, f"{field}.examples", label.examples, 0, MAX_EXAMPLES, max_text_bytes)


def fit_question(question: Question, label_texts: Sequence[EncodedText], usual_temperature: float) -> LabelClassifier:
    """Fits the labels; computes, so not for the event loop.

    Args:
        question: The request.
        label_texts: Of `question.label_texts()`.
        usual_temperature: Of the model.
    """
    vectors = np.stack([text.vector for text in label_texts])
    labels, start = [], 0
    for label in question.labels:
        middle = start + len(label.descriptions)
        end = middle + len(label.examples)
        labels.append(LabelVectors(vectors[start:middle], vectors[middle:end]))
        start = end
    return fit_labels(labels, usual_temperature)


def answer_question(
    question: Question, texts: Sequence[EncodedText], classifier: LabelClassifier, space_fingerprint: str
) -> pb.ClassifyResponse:
    """Classifies and builds the answer; computes, so not for the event loop.

    Args:
        question: The request.
        texts: Of `question.texts`.
        classifier: Of the question's labels.
        space_fingerprint: Of the model.
    """
    scores = classifier.score(np.stack([text.vector for text in texts]))
    response = pb.ClassifyResponse(
        temperature=classifier.temperature,
        calibration_examples=classifier.calibration_examples,
        space_fingerprint=space_fingerprint,
    )
    for i, text in enumerate(texts):
        answer = _classification(question, scores.probabilities[i], scores.similarities[i])
        answer.truncated = text.truncated
        response.classifications.append(answer)
    return response


def _classification(
    question: Question, probabilities: NDArray[np.float64], similarities: NDArray[np.float64]
) -> pb.Classification:
    """The labels to name for one text; arguments: [labels]."""
    ids = [label.id for label in question.labels]
    by_fit = sorted(range(len(ids)), key=lambda label: (-probabilities[label], ids[label]))
    listed = [label for label in by_fit[: question.max_listed] if probabilities[label] >= question.min_probability]
    scores = [pb.LabelScore(id=ids[i], probability=probabilities[i], similarity=similarities[i]) for i in listed]
    unlisted = 1.0 - sum(probabilities[i] for i in listed)
    return pb.Classification(labels=scores, unknown=not listed, unlisted_probability=min(max(unlisted, 0.0), 1.0))
