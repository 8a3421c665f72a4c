"""`zhiyin evaluate`: how good recommendations would have been on recorded events, beside other methods.

What computes is imported by the command itself: all other commands start without it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import structlog
import typer
from rich import box
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from zhiyin_cli.evaluate_methods import asked_methods, chosen_methods
from zhiyin_cli.model_source import DEFAULT_MODEL, ready_model
from zhiyin_cli.terminal import CommandFailed, err, out, readable_failures

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    from numpy.typing import NDArray

    from zhiyin_offline.evaluation.baselines.all_baselines import MakeMethod
    from zhiyin_offline.evaluation.dataset import Dataset
    from zhiyin_offline.evaluation.protocols import Split
    from zhiyin_offline.evaluation.report.as_json import Report

_COLUMNS = ("recall@10", "ndcg@10", "diversity@10")


class Protocol(StrEnum):
    """What is predicted."""

    leave_one_out = "leave-one-out"
    time_split = "time-split"


class Part(StrEnum):
    """Which targets of a protocol."""

    test = "test"
    validation = "validation"


def evaluate(
    dataset_dir: Annotated[
        Path,
        typer.Argument(
            metavar="DATASET_DIR", exists=True, file_okay=False, help="Folder with items and events, and maybe users."
        ),
    ],
    protocol: Annotated[
        Protocol, typer.Option("--protocol", help="The last event of every user, or all events after a moment.")
    ] = Protocol.leave_one_out,
    include_history: Annotated[
        bool, typer.Option("--include-history", help="Items may be recommended to users who are done with them.")
    ] = False,
    part: Annotated[Part, typer.Option("--part", help="Test targets, or those that choices are made on.")] = Part.test,
    frozen: Annotated[
        bool, typer.Option("--frozen", help="time-split: nothing after the cut is learned from, for any case.")
    ] = False,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Runs with different seeds, averaged.")] = 1,
    methods: Annotated[
        str, typer.Option("--methods", help="Which, separated by commas; all without it. `zhiyin` is one of them.")
    ] = "",
    max_users: Annotated[
        int, typer.Option("--max-users", min=0, help="Judge so many users, drawn evenly; 0: all.")
    ] = 0,
    hide_items: Annotated[
        float, typer.Option("--hide-items", min=0, max=1, help="Hide such a share of the catalogue from training.")
    ] = 0.0,
    known_events: Annotated[
        int,
        typer.Option("--known-events", min=-1, help="Judge a fifth of the users as new, with so many events; -1: no."),
    ] = -1,
    incumbent: Annotated[
        Path | None,
        typer.Option(
            "--incumbent",
            exists=True,
            dir_okay=False,
            help='Lists of the present system, a line {"user_id": TEXT, "item_ids": [TEXT, ...]} each, best first.',
        ),
    ] = None,
    json_file: Annotated[Path | None, typer.Option("--json", help="Write all figures to this file.")] = None,
    html_file: Annotated[Path | None, typer.Option("--html", help="Write a report with plots to this file.")] = None,
    model: Annotated[
        str, typer.Option("--model", help="A model directory or a checkpoint, for the words of items.")
    ] = DEFAULT_MODEL,
    cache_dir: Annotated[
        Path, typer.Option("--cache-dir", help="Where models and item vectors are kept between runs.")
    ] = Path(".zhiyin/evaluate"),
) -> None:
    """Judge Zhiyin and other methods on recorded events, by what users really did next."""
    if frozen and protocol is not Protocol.time_split:
        raise typer.BadParameter("--frozen belongs to --protocol time-split")
    # The encoder tells its service's log what it loads; nobody reads a log here.
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    with readable_failures(), _explained():
        from zhiyin_offline.evaluation import dataset as datasets
        from zhiyin_offline.evaluation.evaluation import evaluate as run

        wanted = asked_methods(methods)
        dataset = datasets.read_dataset(dataset_dir)
        split = _split(dataset, protocol, part, frozen=frozen, include_history=include_history)
        _say(_counted(dataset, split))
        model_dir = ready_model(model, cache_dir / "models", _say)
        vectors, fingerprint = _vectors(dataset, model_dir, cache_dir)
        chosen, notes = chosen_methods(wanted, vectors, fingerprint, _say)
        split = _as_new(dataset, split, hide_items, known_events)
        if split.streaming:
            notes.append(
                "Streaming: zhiyin goes on learning from what passes before each case, as in service; the baselines "
                "are fitted anew five times, each time on all that has passed. --frozen holds all to the cut."
            )
        split, sampled = _sampled(split, max_users)
        if incumbent is not None:
            notes.append(_add_incumbent(chosen, incumbent, dataset, split))
        if not chosen:
            raise CommandFailed(" ".join(notes))
        result = run(dataset, split, chosen, vectors, range(seeds), _say)
        asked = {"seeds": list(range(seeds)), "max_users": max_users, "sampled": sampled, "part": part.value}
        asked |= {"hidden_items": hide_items, "known_events": known_events if known_events >= 0 else None}
        figures = _report(dataset, dataset_dir.resolve().name, result, protocol, asked, notes)
        _write(figures, json_file, html_file)
        out.print(_table(figures))
        for line in _sentences(figures):
            out.print(line, markup=False)


@contextmanager
def _explained() -> Iterator[None]:
    """Failures of an evaluation as those of a command."""
    try:
        yield
    except ImportError as exc:
        raise CommandFailed(f"this needs the extra `evaluate` ({exc}): pip install 'zhiyin[cpu,evaluate]'") from exc
    except Exception as exc:
        from encoder_service.model_directory import ModelDirectoryError
        from encoder_service.onnx_backend import BackendError
        from encoder_service.parity import ParityError
        from zhiyin_offline.evaluation.evaluation import NothingToEvaluate

        if isinstance(exc, NothingToEvaluate | ModelDirectoryError | BackendError | ParityError):
            raise CommandFailed(str(exc)) from exc
        raise


def _split(dataset: Dataset, protocol: Protocol, part: Part, *, frozen: bool, include_history: bool) -> Split:
    from zhiyin_offline.evaluation.protocols import leave_one_out, time_split

    if protocol is Protocol.leave_one_out:
        return leave_one_out(dataset, part.value, include_history=include_history)
    return time_split(dataset, part.value, streaming=not frozen, include_history=include_history)


def _as_new(dataset: Dataset, split: Split, hide_items: float, known_events: int) -> Split:
    from zhiyin_offline.evaluation.hidden_items import draw_hidden, hide
    from zhiyin_offline.evaluation.new_users import as_new_users

    if hide_items > 0:
        split = hide(dataset, split, draw_hidden(dataset, hide_items))
    return as_new_users(dataset, split, known_events) if known_events >= 0 else split


def _counted(dataset: Dataset, split: Split) -> str:
    dropped = f", {split.dropped:,} more had been done with before" if split.dropped else ""
    return (
        f"{len(dataset.user_ids):,} users, {len(dataset.items):,} items, {len(dataset.events):,} events; "
        f"{split.name}: {len(split.cases):,} targets{dropped}; learned from {len(split.training):,} events"
    )


def _sampled(split: Split, max_users: int) -> tuple[Split, bool]:
    from zhiyin_offline.evaluation.protocols import sample_users

    smaller = sample_users(split, max_users) if max_users else split
    return smaller, smaller is not split


def _vectors(dataset: Dataset, model_dir: Path, cache_dir: Path) -> tuple[NDArray[np.float32], str]:
    from zhiyin_offline.evaluation.item_vectors import item_vectors

    with Progress(console=err, transient=True) as progress:
        task = progress.add_task("encoding items", total=None)
        return item_vectors(
            dataset.items,
            model_dir,
            cache_dir / "vectors",
            lambda done, total: progress.update(task, completed=done, total=total),
        )


def _add_incumbent(methods: dict[str, MakeMethod], path: Path, dataset: Dataset, split: Split) -> str:
    """The lists in a file as one more method; says whom they are for."""
    from zhiyin_offline.evaluation.incumbent import Incumbent, cases_without_list, read_incumbent
    from zhiyin_offline.evaluation.report.as_json import INCUMBENT

    lists = read_incumbent(path)
    methods[INCUMBENT] = lambda seed: Incumbent(lists)
    missing = cases_without_list(lists, dataset, split.cases)
    return (
        f"The incumbent has lists for {len(lists):,} users; {missing:,} of {len(split.cases):,} cases have none and "
        "count as missed."
    )


def _report(
    dataset: Dataset,
    name: str,
    result: object,
    protocol: Protocol,
    asked: Mapping[str, object],
    notes: list[str],
) -> Report:
    from zhiyin_offline.evaluation.evaluation import Evaluation
    from zhiyin_offline.evaluation.rating_prediction import last_ratings, late_ratings, rating_errors
    from zhiyin_offline.evaluation.report.as_json import report

    assert isinstance(result, Evaluation)
    training, held = (last_ratings if protocol is Protocol.leave_one_out else late_ratings)(dataset)
    counts = {
        "name": name,
        "users": len(dataset.user_ids),
        "items": len(dataset.items),
        "events": len(dataset.events),
        "positive_events": int(dataset.positive.sum()),
    }
    return report(result, counts, {"protocol": protocol.value, **asked}, rating_errors(dataset, training, held), notes)


def _write(figures: Report, json_file: Path | None, html_file: Path | None) -> None:
    from zhiyin_offline.evaluation.report.as_html import page

    try:
        for path in (json_file, html_file):
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
        if json_file is not None:
            json_file.write_text(json.dumps(figures, indent=1, ensure_ascii=False, allow_nan=False) + "\n", "utf-8")
        if html_file is not None:
            html_file.write_text(page(figures), "utf-8")
    except OSError as exc:
        raise CommandFailed(f"cannot write the report: {exc}") from exc


def _table(figures: Report) -> Table:
    """The foremost figures, and how Zhiyin does against each."""
    from zhiyin_offline.evaluation.report.as_json import SUBJECT

    against = figures["verdicts"].get(SUBJECT, {})
    table = Table(title=figures["protocol"]["name"], title_justify="left", box=box.SIMPLE_HEAD)
    table.add_column("method", no_wrap=True)
    for column in _COLUMNS:
        table.add_column(column, justify="right", no_wrap=True)
    if against:
        table.add_column("zhiyin - it")
    for method, metrics in figures["metrics"].items():
        cells = []
        for column in _COLUMNS:
            value, error = metrics.get(column), figures["standard_errors"][method].get(column)
            text = "" if value is None else f"{value:.4f}"
            cells.append(text + (f" ±{error:.3f}" if error is not None and column in _COLUMNS[:2] else ""))
        if against:
            cells.append(_against(against.get(method)))
        table.add_row(Text(method), *cells, style="bold" if method == SUBJECT else None)
    return table


def _against(found: Mapping[str, Mapping[str, object]] | None) -> str:
    if found is None:
        return ""
    of = found["ndcg@10"]
    return f"{of['difference']:+.4f} {of['verdict']}"


def _sentences(figures: Report) -> list[str]:
    """What does not fit the table: ratings, and the verdict on the present system."""
    lines = [f"ratings, {name}: MAE {of['mae']:.3f}, RMSE {of['rmse']:.3f}" for name, of in figures["ratings"].items()]
    for method, parts in figures["chances"].items():
        for part, of in parts.items():
            lines.append(
                f"chances, {method} {part.replace('_', ' ')}: calibration error {of['calibration_error']:.4f}, Brier "
                f"{of['brier']:.4f} (rate of all {of['brier_of_rate']:.4f}) on {of['impressions']:,} impressions"
            )
    found = figures["incumbent"]
    if found is not None:
        of = found["metrics"]["ndcg@10"]
        low, high = of["interval"]
        lines.append(
            f"{found['method']} against the present system: {found['verdict']}, ndcg@10 {of['difference']:+.4f} "
            f"(95 % interval {low:+.4f} to {high:+.4f}, p {of['p']:.2g})"
        )
    return lines


def _say(message: str) -> None:
    err.print(message, markup=False)
