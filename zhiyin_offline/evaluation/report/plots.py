"""The plots of a report, as SVG. Text stays text, so that the reader's own fonts show Chinese too."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from zhiyin_offline.evaluation.report.as_json import INCUMBENT, SUBJECT, Figures, Group, Report

_MOST_METHODS = 6
_MARKED = {SUBJECT: "#b3202c", INCUMBENT: "#1f4e9c"}
_OTHERS = ("#777777", "#5f9ea0", "#c08a3e", "#7a6fa8", "#6b8e4e", "#a8577e", "#4a7ba6", "#8c564b", "#999933")


def relevance_against_diversity(report: Report) -> str | None:
    """Every method as a point with standard errors; None where neither vectors nor categories tell diversity."""
    metrics, errors = report["metrics"], report["standard_errors"]
    for diversity in ("diversity@10", "category_diversity@10"):
        points = [m for m in metrics if metrics[m].get(diversity) is not None]
        if points:
            break
    else:
        return None
    figure, axes = _canvas(7.5, 4.6)
    colours = _colours(list(metrics))
    for name in points:
        x, y = metrics[name]["ndcg@10"], metrics[name][diversity]
        assert x is not None
        assert y is not None
        x_error, y_error = errors[name]["ndcg@10"], errors[name][diversity]
        axes.errorbar(x, y, fmt="o", color=colours[name], capsize=2, xerr=x_error, yerr=y_error)
        axes.annotate(name, (x, y), xytext=(5, 5), textcoords="offset points", fontsize=8)
    axes.set_xlabel("NDCG@10")
    axes.set_ylabel(diversity.replace("_", " "))
    return _svg(figure)


def group_bars(report: Report, metric: str = "ndcg@10") -> str | None:
    """A block of bars a group, one bar a method; None without groups."""
    groups = report["groups"]
    if not groups:
        return None
    names = _foremost(report["metrics"], metric)
    colours, height = _colours(list(report["metrics"])), 0.8 / len(names)
    figure, axes = _canvas(7.5, 0.6 + len(groups) * (0.3 + 0.13 * len(names)))
    for number, name in enumerate(names):
        places = [place + number * height for place in range(len(groups))]
        axes.barh(
            places,
            [group["metrics"][name][metric] or 0.0 for group in groups.values()],
            height,
            xerr=[group["standard_errors"][name][metric] or 0.0 for group in groups.values()],
            color=colours[name],
            label=name,
        )
    axes.set_yticks([place + 0.4 for place in range(len(groups))])
    axes.set_yticklabels([f"{name} ({group['cases']:,})" for name, group in groups.items()], fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(metric.upper())
    axes.set_xlim(left=0)
    figure.legend(loc="outside upper center", ncols=len(names), fontsize=8)
    return _svg(figure)


def learning_curve(report: Report, metric: str = "ndcg@10") -> str | None:
    """A metric by how many events of the user were known; None where all users knew alike."""
    buckets: dict[str, Group] = report["learning_curve"]
    if len(buckets) < 2:
        return None
    names, colours = _foremost(report["metrics"], metric), _colours(list(report["metrics"]))
    figure, axes = _canvas(7.5, 4.2)
    places = range(len(buckets))
    for name in names:
        axes.errorbar(
            places,
            [group["metrics"][name][metric] or 0.0 for group in buckets.values()],
            yerr=[group["standard_errors"][name][metric] or 0.0 for group in buckets.values()],
            marker="o",
            markersize=3,
            capsize=2,
            color=colours[name],
            label=name,
        )
    axes.set_xticks(list(places))
    axes.set_xticklabels([f"{name}\n({group['cases']:,})" for name, group in buckets.items()], fontsize=8)
    axes.set_xlabel("events known of the user (cases)")
    axes.set_ylabel(metric.upper())
    axes.set_ylim(bottom=0)
    figure.legend(loc="outside upper center", ncols=len(names), fontsize=8)
    return _svg(figure)


def _foremost(metrics: Figures, metric: str) -> list[str]:
    """The methods a plot has room for: the marked ones and the best others, in the order of the report."""
    best = sorted(metrics, key=lambda name: (name not in _MARKED, -(metrics[name][metric] or 0.0)))[:_MOST_METHODS]
    return [name for name in metrics if name in best]


def _colours(names: Sequence[str]) -> dict[str, str]:
    others = [name for name in names if name not in _MARKED]
    return _MARKED | {name: _OTHERS[number % len(_OTHERS)] for number, name in enumerate(others)}


def _canvas(width: float, height: float) -> tuple[Figure, Axes]:
    figure = Figure(figsize=(width, height), layout="constrained")  # no pyplot: no window, nothing global
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _svg(figure: Figure) -> str:
    out = io.StringIO()
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "zhiyin"}), warnings.catch_warnings():
        # The fonts here measure the text; those of the reader draw it.
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        figure.savefig(out, format="svg", metadata={"Date": None})
    return out.getvalue()
