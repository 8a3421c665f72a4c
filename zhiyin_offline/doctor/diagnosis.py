"""What an examination finds, one line each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "note", "problem"]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One thing that was looked at.

    Attributes:
        subject: settings, ports, tls, model, stores, index, services or clocks.
        status: `problem` is what has to be mended; `note` what somebody should know, and what could not be looked at.
        what: What was found.
        advice: What to do; empty where nothing is to be done.
    """

    subject: str
    status: Status
    what: str
    advice: str = ""


def ok(subject: str, what: str) -> Diagnosis:
    """All is well."""
    return Diagnosis(subject, "ok", what)


def note(subject: str, what: str, advice: str = "") -> Diagnosis:
    """Worth knowing."""
    return Diagnosis(subject, "note", what, advice)


def problem(subject: str, what: str, advice: str) -> Diagnosis:
    """To be mended."""
    return Diagnosis(subject, "problem", what, advice)
