"""`zhiyin recommend` and what it prints, also when the server refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest
from google.rpc import error_details_pb2
from rich.cells import cell_len
from typer.testing import CliRunner, Result

from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb2
from zhiyin_cli.main import app


def _run(*arguments: str) -> Result:
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, list(arguments))


def test_the_table_shows_title_sources_and_reason(services: Any, address: str) -> None:
    result = _run("recommend", "--profile", "喜欢看电影", "--query", "战争片", "--ranking-address", address)
    assert result.exit_code == 0, result.output
    for word in ("最新上映的电影《长津湖》", "1.250", "profile 1", "matches your profile", "without source:query"):
        assert word in result.output
    assert services.last_recommend is not None
    assert services.last_recommend.anonymous.text == "喜欢看电影"
    assert services.last_recommend.query_text == "战争片"
    assert not services.last_recommend.HasField("diversity")


def test_eighty_columns_are_enough_to_read_a_list(services: Any, address: str) -> None:
    services.reason = "Because you watched “Building a keyboard from scratch”"
    result = CliRunner(env={"COLUMNS": "80"}).invoke(app, ["recommend", "--user", "u", "--ranking-address", address])
    assert result.exit_code == 0, result.output
    lines = [line.rstrip() for line in result.output.splitlines()]
    assert max(cell_len(line) for line in lines) <= 80
    assert any("最新上映的电影《长津湖》" in line and "1.250" in line and "profile 1" in line for line in lines)
    assert "video/film" in [line.strip() for line in lines]
    assert any("Because you watched “Building a" in line for line in lines)


def test_the_json_is_the_response_in_proto3_json(services: Any, address: str) -> None:
    result = _run(
        "recommend", "--user", "u1", "--limit", "3", "--diversity", "0", "--method", "dpp", "--json",
        "--ranking-address", address,
    )  # fmt: skip
    response = json.loads(result.stdout)
    assert response["items"][0]["item"]["title"] == "最新上映的电影《长津湖》"
    assert response["items"][0]["sources"] == [{"source": "SOURCE_KIND_PROFILE", "rank": 1}]
    request = services.last_recommend
    assert request is not None
    assert (request.user_id, request.page_size, request.diversity_method) == ("u1", 3, ranking_pb2.DIVERSITY_METHOD_DPP)
    assert request.HasField("diversity")
    assert request.diversity == 0


def test_violations_of_the_server_are_listed(services: Any, address: str) -> None:
    violation = error_details_pb2.BadRequest.FieldViolation
    services.refuse_recommend(
        3,
        "2 fields are wrong",
        error_details_pb2.BadRequest(
            field_violations=[
                violation(field="catalog", description="must not be empty"),
                violation(field="user_id", description="too long"),
            ]
        ),
        error_details_pb2.ErrorInfo(reason="INVALID_REQUEST", domain="zhiyin"),
    )
    result = _run("recommend", "--user", "u", "--ranking-address", address)
    assert result.exit_code == 1
    assert "INVALID_ARGUMENT (INVALID_REQUEST): 2 fields are wrong" in result.output
    assert "catalog: must not be empty" in result.output
    assert "user_id: too long" in result.output


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--user", "u", "--profile", "p"), "not both"),
        (("--user", "u", "--ranking-address", "127.0.0.1:1"), "nothing answers at 127.0.0.1:1"),
    ],
)
def test_everyday_mistakes(arguments: tuple[str, ...], complaint: str) -> None:
    result = _run("recommend", *arguments)
    assert result.exit_code == 1
    assert complaint in result.output
    assert "Traceback" not in result.output


def test_an_explanation_shows_sources_what_moved_the_item_and_the_list(services: Any, address: str) -> None:
    result = _run("explain", "token-1", "--reproduce", "--ranking-address", address)
    assert result.exit_code == 0, result.output
    assert services.last_explain.attribution_token == "token-1"
    for words in (
        *("《长津湖》", "2, before diversity 1", "1.2500", "因为你看过", "0.5000", "profile", "history", "0.9000"),
        *("rule spring", "boost +0.5000", "nudge.prior", "+0.1000", "film-9", "hidden", "The list as it was served"),
        *("made anew: now: film-2, film-1", "events, users or rules were written", "without explain:dropped"),
    ):
        assert words in result.output, words
    printed = json.loads(_run("explain", "token-1", "--json", "--ranking-address", address).stdout)
    assert printed["rankBeforeDiversity"] == 1
    assert not services.last_explain.reproduce
