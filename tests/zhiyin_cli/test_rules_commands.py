"""`zhiyin rules`: what is written, what is shown, and that one bad rule keeps all of a file out."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from typer.testing import CliRunner, Result

from zhiyin.ranking.v1 import ranking_service_pb2 as pb
from zhiyin_cli.main import app

FILMS = {"fieldIn": {"field": "categories", "values": [{"stringValue": "电影"}]}}
RULES = [
    {"id": "a", "action": "RULE_ACTION_BOOST", "strength": 1.5, "filter": FILMS, "note": "春节"},
    {"id": "b", "action": "RULE_ACTION_QUOTA", "maxPlaces": 2, "perField": "provider"},
    {"id": "c", "action": "RULE_ACTION_FREQUENCY_CAP", "maxImpressions": 3, "period": "3600s"},
]


def run(address: str, *arguments: str, stdin: str | None = None) -> Result:
    environment = {"COLUMNS": "250", "ZHIYIN_RANKING_ADDRESS": address}
    return CliRunner(env=environment).invoke(app, ["rules", *arguments], input=stdin)


def test_rules_of_a_file_are_put_shown_carried_on_and_deleted(services: Any, address: str, tmp_path: Path) -> None:
    file = tmp_path / "rules.json"
    file.write_text(json.dumps(RULES, ensure_ascii=False), encoding="utf-8")
    put = run(address, "put", str(file))
    assert put.exit_code == 0, put.output
    assert "c holds in catalogue default" in put.output
    assert services.rules["a"].filter.field_in.values[0].string_value == "电影"
    assert services.rules["c"].period.seconds == 3600
    shown = run(address, "list").output
    for words in ("a", "boost", "strength=1.5", "电影", "春节", "max_places=2", "per_field=provider", "period=3600s"):
        assert words in shown
    printed = run(address, "list", "--json").stdout
    assert [rule["id"] for rule in json.loads(printed)["rules"]] == ["a", "b", "c"]
    kept = dict(services.rules)
    services.rules.clear()
    assert run(address, "put", "-", stdin=printed).exit_code == 0
    assert services.rules == kept
    assert run(address, "delete", "b").exit_code == 0
    again = run(address, "delete", "b")
    assert again.exit_code == 1
    assert "has no rule 'b'" in again.output


def test_one_rule_is_enough(services: Any, address: str) -> None:
    assert run(address, "put", "-", stdin=json.dumps(RULES[1])).exit_code == 0
    assert services.rules["b"].action == pb.RULE_ACTION_QUOTA


def test_one_bad_rule_keeps_all_of_the_file_out(services: Any, address: str) -> None:
    wrong = [RULES[0], {"id": "x", "action": "RULE_ACTION_COLLAPSE", "note": "bad"}, {"note": "bad"}]
    result = run(address, "put", "-", stdin=json.dumps(wrong))
    assert result.exit_code == 1
    for words in ("rule 'x'", "rule number 3", "rule.note: is bad", "nothing was written"):
        assert words in result.output
    assert not services.rules


def test_what_is_no_rule_is_said_to_be_none(services: Any, address: str, tmp_path: Path) -> None:
    for text, words in (
        ("{", "cannot be read as JSON"),
        ("[]", "has no rule"),
        ('[{"id": "a"}, {"colour": "red"}]', "rule number 2"),
        ('["a"]', "rule number 1"),
        ('{"id": "a", "action": "FLY"}', "rule number 1"),
    ):
        result = run(address, "put", "-", stdin=text)
        assert result.exit_code == 1, result.output
        assert words in result.output
        assert "Traceback" not in result.output
    assert run(address, "put", str(tmp_path / "nowhere.json")).exit_code == 1
    assert not services.rules
