"""What a training is told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Protocol = Literal["leave-one-out", "time-split"]
Progress = Callable[[str, int, int], None]
"""Told the step, and how much of how much of it is done."""


class NothingToLearn(Exception):
    """The record has too few users with a history; the message says what is missing."""


@dataclass(frozen=True)
class TrainingSettings:
    """How to train.

    Attributes:
        protocol: What is predicted: each user's latest event, or the latest events of all.
        max_cases: Cases learned from, drawn evenly; more take longer and teach little more.
        seed: Of everything random.
        threads: Of the learned ranker.
        sequence: Whether a sequence model is trained; it needs PyTorch.
        device: Of PyTorch.
        run_folder: Keeps checkpoints of the sequence model; None: none.
    """

    protocol: Protocol = "leave-one-out"
    max_cases: int = 8_000
    seed: int = 0
    threads: int = 1
    sequence: bool = True
    device: str = "cpu"
    run_folder: Path | None = None
