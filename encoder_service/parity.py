"""Compares what is computed here with the reference of the export, before anything is served.

The reference is PyTorch for a checkpoint, and the fp32 graph for the model that is built without PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder_service.backend import Backend, pad
from encoder_service.model_directory import ParityReport, ParitySet, Precision
from encoder_service.tokenization import TextTokenizer


class ParityError(Exception):
    """Vectors differ from the reference by more than the precision explains: this runtime would serve wrong vectors."""


@dataclass(frozen=True)
class Tolerance:
    """Bounds over all parity texts.

    Attributes:
        max_abs_difference: Of any component.
        min_cosine: Of any text.
    """

    max_abs_difference: float
    min_cosine: float


TOLERANCES: dict[Precision, Tolerance] = {
    # Measured at 3e-7 on the CPU; other providers sum in another order.
    "fp32": Tolerance(2e-5, 0.99999),
    # 11 bits.
    "fp16": Tolerance(1e-2, 0.999),
    # Measured at 6.5e-3 and .9996 with VNNI; .9986 with byte products that saturate, as older CPUs have them.
    "int8": Tolerance(2e-2, 0.999),
    # Measured at 2.5e-3 and .99987 where the runtime rounds activations to 8 bits, at 1e-7 where it does not.
    "int4": Tolerance(1e-2, 0.9995),
}


def measure(computed: NDArray[np.float32], reference: NDArray[np.float32]) -> ParityReport:
    """Largest difference of a component and smallest cosine of a row. Not finite counts as infinitely far."""
    if not np.isfinite(computed).all():
        return ParityReport(max_abs_difference=float("inf"), min_cosine=-1.0)
    a, b = computed.astype(np.float64), reference.astype(np.float64)
    lengths = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
    cosines = (a * b).sum(axis=1) / np.maximum(lengths, 1e-30)
    return ParityReport(max_abs_difference=float(np.abs(a - b).max()), min_cosine=float(cosines.min()))


def check(report: ParityReport, precision: Precision, where: str) -> None:
    """Refuses what is out of tolerance.

    Raises:
        ParityError: Names the figures and `where`.
    """
    bound = TOLERANCES[precision]
    if report.max_abs_difference > bound.max_abs_difference or report.min_cosine < bound.min_cosine:
        raise ParityError(
            f"{where}: vectors differ from those at export by up to {report.max_abs_difference:.2e} (allowed "
            f"{bound.max_abs_difference:.0e}), smallest cosine {report.min_cosine:.6f} (allowed {bound.min_cosine})"
        )


def check_serving(
    tokenizer: TextTokenizer, backend: Backend, known: ParitySet, pad_token_id: int, precision: Precision
) -> ParityReport:
    """Tokenizes and encodes the parity texts as a request would be: each alone, then in batches with others.

    Raises:
        ParityError: Other tokens or other vectors than at export.
    """
    tokenized = tokenizer.tokenize([tokenizer.prompted(t.text, t.role) for t in known.texts])
    for text, tokens in zip(known.texts, tokenized, strict=True):
        if tuple(tokens.token_ids) != text.token_ids:
            raise ParityError(f"tokenizer: other token ids than at export for a parity text of role {text.role}")
    rows = [t.token_ids for t in tokenized]
    alone = np.concatenate([backend.encode(*pad([row], pad_token_id)) for row in rows])
    together = np.empty_like(alone)
    for batch in _mixed_batches([len(row) for row in rows]):
        together[batch] = backend.encode(*pad([rows[i] for i in batch], pad_token_id))
    reports = [measure(computed, known.vectors) for computed in (alone, together)]
    worst = ParityReport(
        max_abs_difference=max(r.max_abs_difference for r in reports), min_cosine=min(r.min_cosine for r in reports)
    )
    check(worst, precision, backend.provider)
    return worst


def _mixed_batches(lengths: list[int]) -> list[list[int]]:
    """Shortest and longest text in one batch, the rest in another: all in one, padded to the longest, takes seconds."""
    order = sorted(range(len(lengths)), key=lengths.__getitem__)
    ends, middle = sorted({order[0], order[-1]}), order[1:-1]
    return [ends, middle] if middle else [ends]
