"""The example catalogue of the project, and importing it once into a running set of services."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import grpc

from zhiyin.ranking.v1 import ranking_service_pb2 as ranking_pb2
from zhiyin.ranking.v1 import ranking_service_pb2_grpc as ranking_grpc
from zhiyin.retrieval.v1 import retrieval_service_pb2 as retrieval_pb2
from zhiyin.retrieval.v1 import retrieval_service_pb2_grpc as retrieval_grpc
from zhiyin_cli.connection import connect
from zhiyin_cli.import_files import EVENTS, ITEMS, USERS, ImportKind, ImportOptions, run_import
from zhiyin_cli.stack import StackPorts
from zhiyin_cli.terminal import CommandFailed
from zhiyin_offline.rows.row_source import RowSource

_FOLDER = Path("examples/catalogue")
_MARKER = "imported.json"
_DEADLINE_S = 10.0


@dataclass(frozen=True)
class ExampleCatalogue:
    """Where the files lie."""

    folder: Path

    @property
    def items(self) -> Path:
        """A folder of item files."""
        return self.folder / "items"

    @property
    def users(self) -> Path:
        """The users."""
        return self.folder / "users.jsonl"

    @property
    def events(self) -> Path:
        """What the users did."""
        return self.folder / "events.jsonl"

    def digest(self) -> str:
        """Changes with any of the files."""
        parts = [RowSource(str(path)).digest() for path in (self.items, self.users, self.events)]
        return hashlib.sha256(":".join(parts).encode()).hexdigest()


def find_catalogue(given: Path | None) -> ExampleCatalogue:
    """The catalogue at `given`, else that of the checkout we are in or run from. Raises CommandFailed."""
    checkout = Path(__file__).parents[2]
    for folder in [given] if given is not None else [_FOLDER, checkout / _FOLDER]:
        if (folder / "users.jsonl").is_file():
            return ExampleCatalogue(folder)
    raise CommandFailed(
        f"the example catalogue is not at {given or _FOLDER}. The installed package does not have it: it is the folder "
        f"{_FOLDER} of the project's source. Run this in a checkout, or name that folder with --catalogue"
    )


def import_once(catalogue: ExampleCatalogue, ports: StackPorts, state_dir: Path) -> bool:
    """Imports items, users and events, unless these files are there already; returns whether there was work.

    Raises CommandFailed when a row is rejected: the example catalogue has to be right.
    """
    marker = state_dir / _MARKER
    if marker.is_file() and json.loads(marker.read_text()) == catalogue.digest() and _is_there(catalogue, ports):
        return False
    _import(ITEMS, catalogue.items, ports.retrieval_address, state_dir)
    _import(USERS, catalogue.users, ports.ranking_address, state_dir)
    _import(EVENTS, catalogue.events, ports.ranking_address, state_dir)
    marker.write_text(json.dumps(catalogue.digest()))
    return True


def _import(kind: ImportKind, path: Path, address: str, state_dir: Path) -> None:
    # Small batches, so that the bar moves.
    summary, rejects_file = run_import(kind, str(path), ImportOptions(address, batch_rows=16, state_dir=state_dir))
    if summary.rejected:
        raise CommandFailed(f"{summary.rejected} rows of {path} were rejected: {rejects_file}")


def _is_there(catalogue: ExampleCatalogue, ports: StackPorts) -> bool:
    """Whether the services hold what the marker says: their folder may have been emptied since."""
    items = sum(1 for _ in RowSource(str(catalogue.items)))
    users = [row.fields["id"] for row in RowSource(str(catalogue.users))]
    with connect(ports.retrieval_address) as channel:
        stats = retrieval_grpc.RetrievalServiceStub(channel).GetCatalogStats(
            retrieval_pb2.GetCatalogStatsRequest(catalog="default"), timeout=_DEADLINE_S
        )
    with connect(ports.ranking_address) as channel:
        try:
            ranking_grpc.RankingServiceStub(channel).GetUser(
                ranking_pb2.GetUserRequest(catalog="default", user_id=users[-1]), timeout=_DEADLINE_S
            )
        except grpc.RpcError:
            return False
    return stats.item_count >= items
