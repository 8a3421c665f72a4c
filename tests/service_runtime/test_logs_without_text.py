"""Logs tell where a fault happened and never what a user wrote."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap

from service_runtime.telemetry import exception_places

_PROGRAM = textwrap.dedent(
    """
    import logging
    from service_runtime.telemetry import configure_logging, get_logger
    configure_logging("sample", "info", FORMAT)

    def handler(profile):
        try:
            int(profile)
        except ValueError as error:
            raise KeyError(profile) from error

    try:
        handler("secret profile")
    except KeyError as error:
        get_logger("a").error("unexpected_error", error=type(error).__name__, exc_info=error)
        logging.getLogger("library").exception("failed")
    """
)


def _logged(log_format: str) -> str:
    code = _PROGRAM.replace("FORMAT", repr(log_format))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stderr


def test_a_json_log_names_exceptions_and_places_only() -> None:
    told = _logged("json")
    assert "secret" not in told
    first = json.loads(told.splitlines()[0])
    assert "builtins.KeyError" in first["exception"]
    assert "builtins.ValueError" in first["exception"]
    assert "in handler" in first["exception"]
    assert "ERROR sample library failed" in told


def test_a_console_log_does_too() -> None:
    told = _logged("console")
    assert "secret" not in told
    assert "in handler" in told


def test_a_cycle_of_causes_ends() -> None:
    error = ValueError("a")
    error.__cause__ = error
    assert exception_places((ValueError, error, None))
