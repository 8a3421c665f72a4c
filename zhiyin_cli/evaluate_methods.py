"""Which methods `zhiyin evaluate` compares. What computes is imported by the functions, as in the command."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from zhiyin_offline.evaluation.baselines.all_baselines import MakeMethod

_UNTRAINED = "zhiyin-untrained"


def asked_methods(methods: str) -> tuple[str, ...]:
    """The names in a list separated by commas, each once; a usage error for a name that no method has."""
    from zhiyin_offline.evaluation.baselines.all_baselines import BASELINES
    from zhiyin_offline.evaluation.other_orders import OTHER_FORMS, SINGLE_SOURCES
    from zhiyin_offline.evaluation.report.as_json import SUBJECT

    known = (SUBJECT, _UNTRAINED, *OTHER_FORMS, *SINGLE_SOURCES, *BASELINES)
    asked = tuple(dict.fromkeys(name for part in methods.split(",") if (name := part.strip())))
    for name in asked:
        if name not in known:
            raise typer.BadParameter(f"there is no method {name!r}; there are {', '.join(known)}")
    return asked


def chosen_methods(
    asked: Sequence[str], vectors: NDArray[np.float32], fingerprint: str, say: Callable[[str], None]
) -> tuple[dict[str, MakeMethod], list[str]]:
    """How to make each method, by name, and what to tell about those that cannot be had."""
    from zhiyin_offline.evaluation.baselines.all_baselines import BASELINES, baselines
    from zhiyin_offline.evaluation.other_orders import OTHER_FORMS
    from zhiyin_offline.evaluation.report.as_json import SUBJECT

    available, missing = _zhiyin(vectors, fingerprint)
    available |= {name: _refitted(make) for name, make in baselines(vectors).items()}
    wanted = asked or (SUBJECT, *OTHER_FORMS, *BASELINES)
    chosen = {name: available[name] for name in wanted if name in available}
    notes = []
    if missing and any(name.startswith(SUBJECT) for name in wanted):
        notes.append(missing)
    if "text" in wanted and "text" not in available:
        notes.append("No item has words of its own: there is no text to recommend by.")
    for note in notes:
        say(note)
    return chosen, notes


def _refitted(make: MakeMethod) -> MakeMethod:
    from zhiyin_offline.evaluation.streaming import RefittedMethod

    return lambda seed: RefittedMethod(lambda: make(seed))


def _zhiyin(vectors: NDArray[np.float32], fingerprint: str) -> tuple[dict[str, MakeMethod], str]:
    """Every form of Zhiyin; or why there is none."""
    try:
        from zhiyin_offline.evaluation.zhiyin_methods import zhiyin_methods
    except ImportError as exc:
        return {}, f"Zhiyin itself is not among the methods, since its training cannot run here: {exc}."
    return zhiyin_methods(vectors, fingerprint), ""
