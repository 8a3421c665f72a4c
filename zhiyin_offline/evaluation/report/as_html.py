"""An evaluation as one page that needs nothing else: tables, plots, verdicts."""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape

from zhiyin_offline.evaluation.evaluation import COMPARED
from zhiyin_offline.evaluation.report.as_json import INCUMBENT, SUBJECT, Figures, Report
from zhiyin_offline.evaluation.report.plots import group_bars, learning_curve, relevance_against_diversity

_STYLE = """
body { font: 15px/1.5 system-ui, "Noto Sans SC", sans-serif; max-width: 76em; margin: 2em auto;
  padding: 0 1em; color: #222 }
table { border-collapse: collapse; margin: 1em 0; font-size: 13px; display: block; overflow-x: auto }
th, td { padding: .25em .7em; border-bottom: 1px solid #ddd; text-align: right; white-space: nowrap }
th:first-child, td:first-child { text-align: left }
td.best { font-weight: bold } tr.marked { background: #fdf3f3 }
td.win { background: #dcf1dc } td.lose { background: #f8dada } td.undecided { color: #666 }
.verdict { font-size: 1.2em; padding: .6em 1em; border-left: 5px solid #888; background: #f6f6f6 }
.verdict.win { border-color: #2c8a2c } .verdict.lose { border-color: #b3202c } small, .note { color: #666 }
img { max-width: 100% }
"""
_ACCURACY = tuple(
    f"{name}@{k}" for k in (5, 10, 20) for name in ("recall", "ndcg", "mrr", "precision", "f1", "map", "hit_rate")
)
_VARIETY = (
    *("coverage@10", "diversity@10", "categories@10", "category_diversity@10", "novelty@10", "serendipity@10"),
    *("popularity@10", "gini@10", "calibration_kl@10"),
)
_LOWER_IS_BETTER = {"popularity@10", "gini@10", "calibration_kl@10"}


def page(report: Report) -> str:
    """The page."""
    protocol, dataset = report["protocol"], report["dataset"]
    head = (
        f"{protocol['name']}, history {'included' if protocol['include_history'] else 'excluded'}; "
        f"{protocol['cases']:,} cases of {protocol['users']:,} users, "
        f"learned from {protocol['training_events']:,} events; "
        f"data: {dataset['users']:,} users, {dataset['items']:,} items, {dataset['events']:,} events"
    )
    parts = [
        f"<h1>Zhiyin 知音: evaluation on {escape(str(dataset['name']))}</h1><p>{escape(head)}.</p>",
        *(f'<p class="note">{escape(note)}</p>' for note in report["notes"]),
        _incumbent(report),
        "<h2>Accuracy</h2>" + _metrics(report, _ACCURACY),
        "<h2>Beyond accuracy</h2>" + _metrics(report, _VARIETY),
        _ratings(report),
        _chances(report),
        f"<h2>Who is better than whom</h2>{_verdicts(report)}",
        _plot("Relevance against diversity", relevance_against_diversity(report)),
        _plot("Groups of users and items", group_bars(report)),
        _groups(report),
        _plot("Users by how many of their events are known", learning_curve(report)),
        "<h2>Seconds</h2>" + _table(("method", "fit", "rank"), _seconds(report["seconds"])),
    ]
    title = f"Evaluation on {escape(str(dataset['name']))}"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f"<style>{_STYLE}</style></head><body>{''.join(parts)}</body></html>\n"
    )


def _incumbent(report: Report) -> str:
    found = report["incumbent"]
    if found is None:
        return ""
    words = {
        "win": "does better than the present system",
        "lose": "does worse than the present system",
        "undecided": "and the present system cannot be told apart on this data",
    }
    details = "; ".join(
        f"{metric} {of['difference']:+.4f} (95 % interval {of['interval'][0]:+.4f} to {of['interval'][1]:+.4f}, "
        f"p {of['p']:.2g})"
        for metric, of in found["metrics"].items()
    )
    verdict = f"{escape(found['method'])} {words[found['verdict']]}"
    return f'<p class="verdict {found["verdict"]}"><b>{verdict}.</b><br><small>{details}</small></p>'


def _metrics(report: Report, names: Sequence[str]) -> str:
    metrics, errors = report["metrics"], report["standard_errors"]
    shown = [name for name in names if any(of.get(name) is not None for of in metrics.values())]
    best = {name: _best(metrics, name) for name in shown}
    rows = []
    for method, of in metrics.items():
        cells = [f"<td>{escape(method)}</td>"]
        for name in shown:
            value, error = of.get(name), errors[method].get(name)
            text = "" if value is None else f"{value:.4f}"
            text += f" <small>±{error:.4f}</small>" if value is not None and error is not None else ""
            cells.append(f'<td class="{"best" if value is not None and value == best[name] else ""}">{text}</td>')
        rows.append(f'<tr class="{"marked" if method in (SUBJECT, INCUMBENT) else ""}">{"".join(cells)}</tr>')
    heads = "".join(f"<th>{escape(name)}</th>" for name in ("method", *shown))
    note = "Means ± standard errors over users" + (
        f"; {len(report['protocol'].get('seeds', [0]))} seeds averaged." if report["seed_standard_errors"] else "."
    )
    return f"<p class=note>{note}</p><table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>"


def _best(metrics: Figures, name: str) -> float | None:
    known = [value for of in metrics.values() if (value := of.get(name)) is not None]
    return (min if name in _LOWER_IS_BETTER else max)(known, default=None)


def _verdicts(report: Report) -> str:
    """One table a metric: the method of the row against that of the column."""
    out = [
        "<p class=note>The method of the row against that of the column: difference, by paired bootstrap over users "
    ]
    out.append(f"({report['protocol']['bootstrap_resamples']:,} draws); coloured where the 95 % interval has no 0.</p>")
    names = list(report["metrics"])
    for metric in COMPARED:
        heads = "".join(f"<th>{escape(name)}</th>" for name in (metric, *names))
        rows = []
        for first in names:
            cells = [f"<td>{escape(first)}</td>"]
            for second in names:
                of = report["verdicts"].get(first, {}).get(second, {}).get(metric)
                if of is None:
                    cells.append("<td></td>")
                    continue
                low, high = of["interval"]
                hint = f"95 % interval {low:+.4f} to {high:+.4f}, p {of['p']:.2g}"
                cells.append(f'<td class="{of["verdict"]}" title="{hint}">{of["difference"]:+.4f}</td>')
            rows.append(f"<tr>{''.join(cells)}</tr>")
        out.append(f"<table><thead><tr>{heads}</tr></thead><tbody>{''.join(rows)}</tbody></table>")
    return "".join(out)


def _groups(report: Report) -> str:
    out = []
    for metric in ("ndcg@10", "recall@10"):
        rows = []
        for name, group in report["groups"].items():
            cells = [name, f"{group['users']:,}", f"{group['cases']:,}"]
            for method in report["metrics"]:
                value, error = group["metrics"][method][metric], group["standard_errors"][method][metric]
                cells.append("" if value is None else f"{value:.4f}" + ("" if error is None else f" ±{error:.4f}"))
            rows.append(cells)
        out.append(_table((metric, "users", "cases", *report["metrics"]), rows))
    return "".join(out)


def _ratings(report: Report) -> str:
    if not report["ratings"]:
        return ""
    rows = [(name, f"{of['mae']:.4f}", f"{of['rmse']:.4f}") for name, of in report["ratings"].items()]
    return "<h2>Ratings</h2>" + _table(("predictor", "MAE", "RMSE"), rows)


def _chances(report: Report) -> str:
    """Reliability tables: of what got about the same chance, how much was acted on."""
    words = {"in_training": "of users set aside in training, out of fold", "later": "shown after the cut"}
    out = []
    for method, parts in report["chances"].items():
        for part, of in parts.items():
            out.append(
                f"<p>{escape(method)}, {of['impressions']:,} impressions {words[part]}: calibration error "
                f"{of['calibration_error']:.4f}; Brier score {of['brier']:.4f}, by the rate of all "
                f"{of['brier_of_rate']:.4f}.</p>"
            )
            rows = [
                (f"{b['predicted']:.4f}", f"{b['observed']:.4f}", f"{b['impressions']:,}") for b in of["reliability"]
            ]
            out.append(_table(("mean chance told", "share acted on", "impressions"), rows))
    return "<h2>Chances of what is shown</h2>" + "".join(out) if out else ""


def _seconds(seconds: Figures) -> Iterable[Sequence[str]]:
    return [(name, f"{of['fit'] or 0:.1f}", f"{of['rank'] or 0:.1f}") for name, of in seconds.items()]


def _plot(title: str, svg: str | None) -> str:
    if svg is None:
        return ""
    # As an image: the names inside one drawing cannot meet those of another.
    data = base64.b64encode(svg.encode()).decode()
    return f'<h2>{escape(title)}</h2><img alt="{escape(title)}" src="data:image/svg+xml;base64,{data}">'


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    head = "".join(f"<th>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
