"""Alert rules and dashboards ask for nothing that is not exported, and every alert says where its runbook is."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.observability.metrics_page import ROOT, listed_metrics
from tests.observability.promql import asked_by

_RULES = ROOT / "deploy/prometheus/alerts.yaml"
_RULE_TESTS = ROOT / "deploy/prometheus/alerts_test.yaml"
_DASHBOARDS = sorted((ROOT / "deploy/grafana").glob("*.json"))
_OF_TARGETS = {"job", "instance"}


def _alerts() -> list[dict[str, Any]]:
    return [rule for group in yaml.safe_load(_RULES.read_text())["groups"] for rule in group["rules"]]


def _series() -> dict[str, set[str]]:
    """The labels of every series that a scrape brings, by name."""
    found: dict[str, set[str]] = {}
    for each in listed_metrics():
        labels = {*each.labels, *_OF_TARGETS}
        if each.kind == "histogram":
            found[f"{each.name}_bucket"] = labels | {"le"}
            found[f"{each.name}_sum"] = found[f"{each.name}_count"] = labels
        else:
            found[each.name] = labels
    return found


def _expressions() -> Iterator[Any]:
    for alert in _alerts():
        shown = set(re.findall(r"\$labels\.(\w+)", " ".join(alert["annotations"].values())))
        yield pytest.param(alert["expr"], shown, id=alert["alert"])
    for path in _DASHBOARDS:
        for panel in json.loads(path.read_text())["panels"]:
            for target in panel["targets"]:
                shown = set(re.findall(r"{{(\w+)}}", target["legendFormat"]))
                yield pytest.param(target["expr"], shown, id=f"{path.stem}-{panel['id']}-{target['refId']}")


@pytest.mark.parametrize(("expression", "shown"), list(_expressions()))
def test_an_expression_uses_only_metrics_and_labels_that_there_are(expression: str, shown: set[str]) -> None:
    asked, series = asked_by(expression), _series()
    assert asked.selected
    for name, labels in asked.selected:
        assert name in series, f"{name} is exported by no service"
        assert labels <= series[name], f"{name} has no labels {labels - series[name]}"
    there = set().union(*(series[name] for name in asked.metrics))
    assert asked.grouped <= there
    kept = asked.grouped if " by (" in expression else there
    assert shown <= kept, f"the text shows {shown - kept}, which the expression does not keep"


def test_every_expression_is_read_strictly() -> None:
    """The test above can fail: it sees through functions, groupings and matches."""
    asked = asked_by("sum by (a) (rate(one{b='1'}[$__rate_interval])) / on (c) group_left (d) (two or three{e=~'2'})")
    assert asked.selected == [("one", frozenset("b")), ("two", frozenset()), ("three", frozenset("e"))]
    assert asked.grouped == {"a", "c", "d"}
    with pytest.raises(ValueError):
        asked_by("sum by (a (one)")


def _anchors(page: Path) -> set[str]:
    titles = re.findall(r"^#+ (.+)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("alert", _alerts(), ids=lambda alert: alert["alert"])
def test_an_alert_names_a_runbook_that_exists(alert: dict[str, Any]) -> None:
    page, anchor = alert["annotations"]["runbook"].split("#")
    assert anchor in _anchors(ROOT / page)
    assert alert["labels"]["severity"] in {"warning", "critical"}


def test_every_runbook_is_of_an_alert() -> None:
    headings = re.findall(r"^## (\w+)$", (ROOT / "docs/alerts.md").read_text(), re.MULTILINE)
    assert sorted(headings) == sorted(alert["alert"] for alert in _alerts())


def test_anchors_within_the_documents_about_metrics_exist() -> None:
    for page in (ROOT / "docs/alerts.md", ROOT / "docs/metrics.md"):
        for name, anchor in re.findall(r"\]\(([\w.]*)#([\w-]+)\)", page.read_text()):
            assert anchor in _anchors(page.parent / name if name else page), (page.name, name, anchor)


def test_metrics_that_the_runbooks_name_exist() -> None:
    series, kinds = _series(), {each.name for each in listed_metrics()}
    for name in re.findall(
        r"\b(zhiyin_(?:rpc|service|encoder|retrieval|ranking)_\w+)", (ROOT / "docs/alerts.md").read_text()
    ):
        assert name in series or name in kinds, name


def test_there_is_a_dashboard_a_service_and_an_overview() -> None:
    assert [path.stem for path in _DASHBOARDS] == ["encoder", "overview", "ranking", "retrieval"]
    uids = {json.loads(path.read_text())["uid"] for path in _DASHBOARDS}
    assert len(uids) == 4


def test_the_dashboards_are_what_their_script_writes() -> None:
    subprocess.run([sys.executable, str(ROOT / "scripts/generate_dashboards"), "--check"], check=True)


def test_each_alert_fires_on_what_it_is_about_and_none_on_services_that_are_well() -> None:
    cases = {case["name"]: case for case in yaml.safe_load(_RULE_TESTS.read_text())["tests"]}
    assert set(cases) == {*(alert["alert"] for alert in _alerts()), "all is well"}
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("install promtool (Debian: prometheus) to run the tests of the alert rules")
    for arguments in (["check", "config", "prometheus.yaml"], ["test", "rules", _RULE_TESTS.name]):
        done = subprocess.run([promtool, *arguments], cwd=_RULES.parent, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
