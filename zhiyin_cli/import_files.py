"""Imports a file of items, users or events into a running service, with a progress bar."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb2
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as ranking_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc
from zhiyin_cli.connection import Tls, connect
from zhiyin_cli.import_run import ImportRun, ImportSummary
from zhiyin_cli.import_state import ImportIdentity, ImportState, state_files
from zhiyin_cli.terminal import err
from zhiyin_client.bulk.batches import BatchLimits
from zhiyin_client.sync.batch_streams import event_stream, item_stream, user_stream
from zhiyin_offline.rows.row_messages import event_message, item_message, user_message
from zhiyin_offline.rows.row_source import RowSource

_LIMITS_DEADLINE_S = 10.0


@dataclass(frozen=True)
class ImportKind:
    """How one kind of row travels."""

    name: str
    build: Callable[[Any], Any]
    open_stream: Callable[[grpc.Channel, str], Any]
    server_limits: Callable[[grpc.Channel], tuple[int, int]]
    """Rows a batch and bytes a message that the server takes."""


@dataclass(frozen=True)
class ImportOptions:
    """What the caller chose."""

    address: str
    catalog: str = "default"
    resume: bool = False
    batch_rows: int = BatchLimits.max_rows
    in_flight: int = BatchLimits.in_flight
    state_dir: Path = Path(".zhiyin/imports")
    rejects: Path | None = None
    tls: Tls | None = None


def _item_limits(channel: grpc.Channel) -> tuple[int, int]:
    limits = retrieval_grpc.RetrievalServiceStub(channel).GetLimits(
        retrieval_pb2.GetLimitsRequest(), timeout=_LIMITS_DEADLINE_S
    )
    return limits.max_items_per_batch, limits.max_message_bytes


def _user_limits(channel: grpc.Channel) -> tuple[int, int]:
    limits = ranking_grpc.RankingServiceStub(channel).GetLimits(
        ranking_pb2.GetLimitsRequest(), timeout=_LIMITS_DEADLINE_S
    )
    return limits.max_users_per_batch, limits.max_message_bytes


def _event_limits(channel: grpc.Channel) -> tuple[int, int]:
    limits = ranking_grpc.RankingServiceStub(channel).GetLimits(
        ranking_pb2.GetLimitsRequest(), timeout=_LIMITS_DEADLINE_S
    )
    return limits.max_events_per_batch, limits.max_message_bytes


ITEMS = ImportKind("items", item_message, item_stream, _item_limits)
USERS = ImportKind("users", user_message, user_stream, _user_limits)
EVENTS = ImportKind("events", event_message, event_stream, _event_limits)


def run_import(kind: ImportKind, file: str, chosen: ImportOptions) -> tuple[ImportSummary, Path]:
    """Imports a file with a progress bar.

    Returns the summary and where rejected rows lie. Raises ImportFailed or grpc.RpcError.
    """
    source = RowSource(file)
    identity = None if source.is_stdin else ImportIdentity(kind.name, source.digest(), chosen.catalog, chosen.address)
    checkpoint_file, rejects_file = state_files(
        chosen.state_dir, identity or ImportIdentity(kind.name, "stdin", chosen.catalog, chosen.address)
    )
    with connect(chosen.address, chosen.tls) as channel:
        max_rows, max_message_bytes = kind.server_limits(channel)
        limits = BatchLimits(max_rows=chosen.batch_rows, in_flight=chosen.in_flight).within(max_rows, max_message_bytes)
        stream = kind.open_stream(channel, chosen.catalog)
        state = ImportState(checkpoint_file if identity else None, chosen.rejects or rejects_file, identity)
        with _progress() as progress:
            task = progress.add_task(f"{kind.name} from {source.name}", total=source.total_bytes, detail="")

            def show(summary: ImportSummary) -> None:
                rejected = f", {summary.rejected:,} rejected" if summary.rejected else ""
                progress.update(task, completed=source.position, detail=f"{summary.accepted:,} accepted{rejected}")

            try:
                summary = ImportRun(source, kind.build, stream, limits, max_message_bytes, state, show).run(
                    chosen.resume
                )
                show(summary)
            finally:
                stream.close()
    return summary, state.rejects_file


def _progress() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TextColumn("{task.fields[detail]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=err,
    )
