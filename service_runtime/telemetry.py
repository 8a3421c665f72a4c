"""Logs and metrics. Neither ever holds the text of a user or an item, or a raw user id."""

from __future__ import annotations

import contextlib
import logging
import sys
import traceback
from typing import Any, TextIO, cast

import structlog
from prometheus_client import Gauge

from service_runtime import request_context

SERVICE_READY = Gauge("zhiyin_service_ready", "1 while the service reports SERVING.", ["service"])

_MAX_TRACE_LINES = 200


def get_logger(name: str) -> structlog.stdlib.BoundLogger:
    """A logger for a module: `log.info("event_name", key=value)`."""
    return cast(structlog.stdlib.BoundLogger, structlog.get_logger(component=name))


def configure_logging(service: str, level: str, log_format: str) -> None:
    """Sets logging up for the process: one line an event on standard error, JSON or for people."""
    renderer: Any = (
        structlog.processors.JSONRenderer(ensure_ascii=False)
        if log_format == "json"
        else structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())
    )
    structlog.configure(
        processors=[
            _add_request_id,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.StackInfoRenderer(),
            structlog.processors.ExceptionRenderer(exception_places),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level.upper()]),
        logger_factory=structlog.PrintLoggerFactory(file=cast(TextIO, _ForgivingStderr())),
        cache_logger_on_first_use=True,
    )
    structlog.contextvars.clear_contextvars()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter(f"%(levelname)s {service} %(name)s %(message)s"))
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def exception_places(exc_info: structlog.typing.ExcInfo) -> str:
    """Which exceptions were raised where, without their messages: those may quote what a user wrote."""
    lines: list[str] = []
    cause: BaseException | None = exc_info[1]
    while cause is not None and len(lines) < _MAX_TRACE_LINES:
        lines.append(f"{type(cause).__module__}.{type(cause).__qualname__}")
        lines += [f"  {at.filename}:{at.lineno} in {at.name}" for at in traceback.extract_tb(cause.__traceback__)]
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)
    return "\n".join(lines)


class _ForgivingStderr:
    """Standard error, of which a failure loses a line and nothing else.

    It may be a file on the disk that has just become full: whoever reports that must not fail over the report.
    """

    def write(self, text: str) -> None:
        """A line."""
        with contextlib.suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """What is not out yet."""
        with contextlib.suppress(OSError):
            sys.stderr.flush()


class _Formatter(logging.Formatter):
    """Logs of libraries, with the same care."""

    def formatException(self, ei: Any) -> str:
        return exception_places(ei)


def _add_request_id(_logger: Any, _method: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
    request_id = request_context.current().request_id
    if request_id != "background":
        event["request_id"] = request_id
    return event
