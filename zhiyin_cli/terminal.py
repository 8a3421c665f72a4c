"""What all commands print with, and how their failures are shown.

One place, so that none shows a traceback for an everyday fault.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import grpc
import typer
from rich.console import Console
from rich.text import Text

from zhiyin_cli.server_errors import ServerRefused
from zhiyin_client.bulk.batches import ImportStopped
from zhiyin_client.refusals import Refusal, from_rpc_error
from zhiyin_offline.rows.row_errors import ImportFailed

out = Console(highlight=False)
err = Console(stderr=True, highlight=False)


class CommandFailed(Exception):
    """A command cannot do its work; the message says why and what to do."""


@contextmanager
def readable_failures(address: str | None = None) -> Iterator[None]:
    """Turns failures into readable lines on standard error and exit code 1. `address` is the service being called."""
    try:
        yield
    except (CommandFailed, ImportFailed, ImportStopped) as exc:
        fail(str(exc))
    except ServerRefused as exc:
        fail(refusal_text(exc.refusal, address))
    except grpc.RpcError as exc:
        fail(refusal_text(from_rpc_error(exc), address))


def fail(message: str) -> NoReturn:
    """Prints a message as an error and ends the command with code 1."""
    err.print(Text(message, style="red"))
    raise typer.Exit(1)


def refusal_text(refusal: Refusal, address: str | None = None) -> str:
    """A refusal for people: every violation on a line of its own, and what to do when nobody answered."""
    lines = [str(refusal)]
    lines += [f"  {field}: {description}" for field, description in refusal.violations]
    if refusal.retry_after_s is not None:
        lines.append(f"  try again in {refusal.retry_after_s:.1f} s")
    if refusal.code is grpc.StatusCode.UNAVAILABLE and not refusal.reason and address:
        lines.append(f"  nothing answers at {address}: is `zhiyin up` running, is the address right,")
        lines.append(
            "  and is TLS (--tls-ca-file) used exactly if the server does, with the CA that signed its certificate?"
        )
    if refusal.code is grpc.StatusCode.DEADLINE_EXCEEDED and address:
        lines.append(f"  {address} did not answer in time")
    return "\n".join(lines)
