"""Classify on Chinese news titles of 15 classes (TNEWS), through the services as a user starts them.

Labels are described in `news_labels.jsonl`, written without looking at the titles that are scored. The titles that the
constants of `encoder_service/classification.py` were chosen on are not scored, and examples come from the other file.

Environment:
    ZHIYIN_TEST_DATA: a folder with `tnews-titles`.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from numpy.typing import NDArray

from benchmarks.stack import running_stack
from zhiyin.encoder.v1 import encoder_service_pb2 as pb
from zhiyin.encoder.v1.encoder_service_pb2_grpc import EncoderServiceStub
from zhiyin_cli.model_source import DEFAULT_MODEL

TITLES = 2000
CHOSEN_ON = 2000
EXAMPLE_POOL = 60  # titles of a class
EXAMPLE_SEEDS = 5
EXAMPLES = (1, 8, 32)
FOREIGN_EVERY = 3  # every third class is left out of the labels to see what becomes of its titles
UNKNOWN_BELOW = (0.3, 0.5, 0.7)
LATENCY_CALLS = 150
_BATCH = 200
_BINS = 15


@dataclass(frozen=True)
class NewsLabel:
    """A class of news and our words for it."""

    label: str
    name: str
    descriptions: list[str]
    english: str


@dataclass(frozen=True)
class Titles:
    """Titles with their classes, as indices of the labels."""

    texts: list[str]
    truth: NDArray[np.int64]


@dataclass(frozen=True)
class Answers:
    """What Classify said: [titles, labels], and with which temperature."""

    probabilities: NDArray[np.float64]
    temperature: float

    def accuracy(self, truth: NDArray[np.int64]) -> float:
        """Share of titles whose most probable label is right."""
        return float((self.probabilities.argmax(axis=1) == truth).mean())

    def calibration_error(self, truth: NDArray[np.int64]) -> float:
        """Expected calibration error of the most probable label, over 15 bins of equal width."""
        best = self.probabilities.max(axis=1)
        right = self.probabilities.argmax(axis=1) == truth
        bins = np.minimum((best * _BINS).astype(int), _BINS - 1)
        parts = [bins == i for i in np.unique(bins)]
        return float(sum(part.mean() * abs(best[part].mean() - right[part].mean()) for part in parts))

    def at(self, temperature: float) -> Answers:
        """The same similarities with another temperature."""
        powers = np.maximum(self.probabilities, 1e-300) ** (self.temperature / temperature)
        return Answers(powers / powers.sum(axis=1, keepdims=True), temperature)


def news_labels() -> list[NewsLabel]:
    """The 15 classes."""
    lines = (Path(__file__).parent / "news_labels.jsonl").read_text().splitlines()
    return [NewsLabel(**json.loads(line)) for line in lines]


def read_titles(data: Path, labels: Sequence[NewsLabel]) -> tuple[Titles, list[list[str]]]:
    """Titles to score, and titles of each class to take examples from; no title stands in both."""
    index = {label.label: i for i, label in enumerate(labels)}
    scored, others = _distinct(data / "test.json.gz"), _distinct(data / "dev.json.gz")
    shuffle = random.Random(0)
    texts, rest = sorted(scored), sorted(set(others) - set(scored))
    shuffle.shuffle(texts)
    shuffle.shuffle(rest)
    chosen = texts[CHOSEN_ON : CHOSEN_ON + TITLES]
    pool: list[list[str]] = [[] for _ in labels]
    for text in rest:
        if len(own := pool[index[others[text]]]) < EXAMPLE_POOL:
            own.append(text)
    return Titles(chosen, np.array([index[scored[text]] for text in chosen])), pool


def described(labels: Sequence[NewsLabel], how: str = "name and descriptions") -> list[pb.Label]:
    """The labels as Classify takes them: by `name`, `descriptions`, both, or in `english`."""
    words: Mapping[str, Any] = {
        "name": lambda label: [label.name],
        "descriptions": lambda label: label.descriptions,
        "name and descriptions": lambda label: [label.name, *label.descriptions],
        "english": lambda label: [label.english],
    }
    return [pb.Label(id=label.label, descriptions=words[how](label)) for label in labels]


def with_examples(labels: Sequence[pb.Label], pool: Sequence[Sequence[str]], count: int, seed: int) -> list[pb.Label]:
    """The same labels with `count` examples each, or as many as there are."""
    draw = random.Random(seed)
    taught = []
    for label, own in zip(labels, pool, strict=True):
        examples = draw.sample(list(own), min(count, len(own)))
        taught.append(pb.Label(id=label.id, descriptions=label.descriptions, examples=examples))
    return taught


def classify(stub: EncoderServiceStub, texts: Sequence[str], labels: Sequence[pb.Label]) -> Answers:
    """All probabilities of all labels."""
    index = {label.id: i for i, label in enumerate(labels)}
    probabilities = np.zeros((len(texts), len(labels)))
    temperature = 0.0
    for start in range(0, len(texts), _BATCH):
        request = pb.ClassifyRequest(texts=texts[start : start + _BATCH], labels=labels, max_labels=len(labels))
        answer = stub.Classify(request, timeout=120)
        temperature = answer.temperature
        for i, found in enumerate(answer.classifications, start):
            for score in found.labels:
                probabilities[i, index[score.id]] = score.probability
    return Answers(probabilities, temperature)


def run() -> dict[str, Any]:
    """Measures; ratios are accuracies over the plain argmax, and times over those of Embed."""
    labels = news_labels()
    titles, pool = read_titles(Path(os.environ["ZHIYIN_TEST_DATA"]) / "tnews-titles", labels)
    with (
        tempfile.TemporaryDirectory() as scratch,
        running_stack(Path(scratch), DEFAULT_MODEL) as stack,
        grpc.insecure_channel(stack.encoder_address) as channel,
    ):
        stub = EncoderServiceStub(channel)
        model = stub.GetModelInfo(pb.GetModelInfoRequest(), timeout=20)
        plain = _plain_argmax(stub, titles, labels)
        zero_shot = _zero_shot(stub, titles, labels)
        few_shot = _few_shot(stub, titles, labels, pool)
        unknown = _foreign(stub, titles, labels, pool)
        latency = _latency(stub, labels, pool)
    taken_over = {
        "classify_by_name": zero_shot["name"]["accuracy"],
        "classify_by_name_and_descriptions": zero_shot["name and descriptions"]["accuracy"],
        "classify_with_8_examples": few_shot["8"]["accuracy"],
    }
    ratios = {f"{name}_over_plain_argmax": round(value / plain, 3) for name, value in taken_over.items()}
    ratios["classify_over_embed_ms"] = round(latency["classify_ms"] / latency["embed_ms"], 2)
    return {
        "ratios": ratios,
        "figures": {
            "plain_argmax_over_label_names": {"accuracy": round(plain, 4)},
            "zero_shot": zero_shot,
            "examples_a_label": few_shot,
            "labels_without_every_third_class": unknown,
            "one_title_known_labels": latency,
        },
        "model": f"{model.model_name} {model.precision}",
        "titles": len(titles.texts),
        "standard_error_of_an_accuracy": round(0.5 / len(titles.texts) ** 0.5, 4),
    }


def _distinct(path: Path) -> dict[str, str]:
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    return {row["sentence"]: row["label"] for row in reversed(rows)}  # the first of equals counts


def _plain_argmax(stub: EncoderServiceStub, titles: Titles, labels: Sequence[NewsLabel]) -> float:
    """What a caller would do alone: embed titles and label names, take the largest cosine."""

    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        rows = []
        for start in range(0, len(texts), _BATCH):
            matrix = stub.Embed(pb.EmbedRequest(texts=texts[start : start + _BATCH]), timeout=120).embeddings
            rows.append(np.frombuffer(matrix.data, "<f4").reshape(matrix.rows, matrix.dimensions))
        return np.concatenate(rows)

    cosines = embed(titles.texts) @ embed([label.name for label in labels]).T
    return float((cosines.argmax(axis=1) == titles.truth).mean())


def _quality(answers: Answers, truth: NDArray[np.int64]) -> dict[str, float]:
    return {
        "accuracy": round(answers.accuracy(truth), 4),
        "calibration_error": round(answers.calibration_error(truth), 4),
    }


def _zero_shot(stub: EncoderServiceStub, titles: Titles, labels: Sequence[NewsLabel]) -> dict[str, Any]:
    return {
        how: _quality(classify(stub, titles.texts, described(labels, how)), titles.truth)
        for how in ("name", "descriptions", "name and descriptions", "english")
    }


def _few_shot(
    stub: EncoderServiceStub, titles: Titles, labels: Sequence[NewsLabel], pool: Sequence[Sequence[str]]
) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    usual = classify(stub, titles.texts[:1], described(labels)).temperature
    for count in EXAMPLES:
        drawn = [with_examples(described(labels), pool, count, seed) for seed in range(EXAMPLE_SEEDS)]
        answers = [classify(stub, titles.texts, taught) for taught in drawn]
        accuracies = [each.accuracy(titles.truth) for each in answers]
        default = [each.at(usual).calibration_error(titles.truth) for each in answers]
        figures[str(count)] = {
            "accuracy": round(statistics.mean(accuracies), 4),
            "accuracy_standard_deviation_over_draws": round(statistics.stdev(accuracies), 4),
            "calibration_error": round(statistics.mean(each.calibration_error(titles.truth) for each in answers), 4),
            "calibration_error_at_default_temperature": round(statistics.mean(default), 4),
            "temperatures": [round(each.temperature, 4) for each in answers],
        }
    return figures


def _foreign(
    stub: EncoderServiceStub, titles: Titles, labels: Sequence[NewsLabel], pool: Sequence[Sequence[str]]
) -> dict[str, Any]:
    """Titles of classes that are no label: how many are called unknown, and what that costs the others."""
    kept = [i for i in range(len(labels)) if i % FOREIGN_EVERY]
    ours = [labels[i] for i in kept]
    foreign = ~np.isin(titles.truth, kept)
    truth = np.searchsorted(kept, titles.truth[~foreign])
    plain = described(ours)
    figures: dict[str, Any] = {"labels": len(ours), "foreign_titles": int(foreign.sum())}
    for name, asked in (
        ("no examples", plain),
        ("8 examples", with_examples(plain, [pool[i] for i in kept], 8, seed=0)),
    ):
        probabilities = classify(stub, titles.texts, asked).probabilities
        best, right = probabilities.max(axis=1), probabilities[~foreign].argmax(axis=1) == truth
        for threshold in UNKNOWN_BELOW:
            answered = best[~foreign] >= threshold
            figures[f"{name}, unknown below {threshold}"] = {
                "foreign_called_unknown": round(float((best[foreign] < threshold).mean()), 3),
                "own_answered": round(float(answered.mean()), 3),
                "accuracy_of_own_answered": round(float(right[answered].mean()), 3),
            }
    return figures


def _latency(stub: EncoderServiceStub, labels: Sequence[NewsLabel], pool: Sequence[Sequence[str]]) -> dict[str, float]:
    """One new title at a time against labels with 8 examples seen before, and Embed of another one, in turns."""
    asked = with_examples(described(labels), pool, 8, seed=0)
    stub.Classify(pb.ClassifyRequest(texts=["预热"], labels=asked), timeout=120)
    words = [text for own in pool for text in own]
    times: dict[str, list[float]] = {"embed_ms": [], "classify_ms": []}
    for i in range(LATENCY_CALLS):
        started = time.perf_counter()
        stub.Embed(pb.EmbedRequest(texts=[f"{i} {words[2 * i]}"]), timeout=20)
        between = time.perf_counter()
        stub.Classify(pb.ClassifyRequest(texts=[f"{i} {words[2 * i + 1]}"], labels=asked), timeout=20)
        times["embed_ms"].append((between - started) * 1e3)
        times["classify_ms"].append((time.perf_counter() - between) * 1e3)
    return {name: round(statistics.median(values), 2) for name, values in times.items()}
