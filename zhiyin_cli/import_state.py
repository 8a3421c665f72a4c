"""What an import leaves on disk: a checkpoint to go on from and the rows that were rejected.

Everything up to the checkpoint's row is resolved: accepted, or written to the rejects file. Rows after it may have
been accepted too; sending them again changes nothing, since items are replaced and events deduplicated.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from zhiyin_offline.rows.row_source import SourceRow


@dataclass(frozen=True)
class ImportIdentity:
    """Which import this is: a checkpoint of another file, kind, catalogue or server is not its own."""

    kind: str
    digest: str
    catalog: str
    address: str


@dataclass(frozen=True)
class Checkpoint:
    """How far an import came."""

    rows_done: int = 0
    """Rows, from the first, that are all resolved."""


class ImportState:
    """The two files of one import. `identity` None (standard input) keeps no checkpoint."""

    def __init__(self, checkpoint_file: Path | None, rejects_file: Path, identity: ImportIdentity | None) -> None:
        self._checkpoint_file = checkpoint_file
        self._identity = identity
        self.rejects_file = rejects_file
        self._rejects: IO[str] | None = None
        self._rejected: set[int] = set()

    @property
    def rejected_count(self) -> int:
        """Rows rejected so far, those before a resumed import included."""
        return len(self._rejected)

    def start(self, resume: bool) -> Checkpoint:
        """Reads the checkpoint when asked to resume; otherwise begins anew with an empty rejects file."""
        checkpoint = self._read_checkpoint() if resume else Checkpoint()
        earlier = _read_rejects(self.rejects_file, checkpoint.rows_done) if checkpoint.rows_done else {}
        self.rejects_file.unlink(missing_ok=True)
        for line in earlier.values():
            self._write_reject(line)
        self._rejected = set(earlier)
        return checkpoint

    def reject(self, ordinal: int, row: SourceRow, reason: str) -> None:
        """Writes a row to the rejects file, once."""
        if ordinal in self._rejected:
            return
        record = {"row": ordinal, "file": row.file, "line": row.line, "reason": reason, "fields": row.fields}
        self._rejected.add(ordinal)
        self._write_reject(json.dumps(record, ensure_ascii=True, default=str))

    def save(self, checkpoint: Checkpoint) -> None:
        """Makes the checkpoint durable, after the rejects it stands for."""
        if self._checkpoint_file is None or self._identity is None:
            return
        if self._rejects is not None:
            self._rejects.flush()
            os.fsync(self._rejects.fileno())
        self._checkpoint_file.parent.mkdir(parents=True, exist_ok=True)
        temporary = self._checkpoint_file.with_suffix(".tmp")
        temporary.write_text(json.dumps({"identity": asdict(self._identity), **asdict(checkpoint)}))
        temporary.replace(self._checkpoint_file)

    def finish(self) -> None:
        """The import is complete: nothing is left to resume."""
        self.close()
        if self._checkpoint_file is not None:
            self._checkpoint_file.unlink(missing_ok=True)

    def close(self) -> None:
        """Closes the rejects file."""
        if self._rejects is not None:
            self._rejects.close()
            self._rejects = None

    def _write_reject(self, line: str) -> None:
        if self._rejects is None:
            self.rejects_file.parent.mkdir(parents=True, exist_ok=True)
            self._rejects = self.rejects_file.open("w", encoding="utf-8")
        self._rejects.write(line + "\n")

    def _read_checkpoint(self) -> Checkpoint:
        if self._checkpoint_file is None or self._identity is None or not self._checkpoint_file.is_file():
            return Checkpoint()
        try:
            saved = json.loads(self._checkpoint_file.read_text())
            if saved.pop("identity") != asdict(self._identity):
                return Checkpoint()
            return Checkpoint(rows_done=int(saved["rows_done"]))
        except (ValueError, KeyError, TypeError):
            return Checkpoint()  # a damaged checkpoint costs time, not rows


def _read_rejects(path: Path, up_to_row: int) -> dict[int, str]:
    if not path.is_file():
        return {}
    lines = {int(json.loads(line)["row"]): line for line in path.read_text(encoding="utf-8").splitlines()}
    return {ordinal: line for ordinal, line in lines.items() if ordinal <= up_to_row}


def state_files(state_dir: Path, identity: ImportIdentity) -> tuple[Path, Path]:
    """Where the checkpoint and the rejects of an import lie."""
    name = f"{identity.kind}-{identity.catalog}-{identity.digest[:12]}"
    return state_dir / f"{name}.checkpoint.json", state_dir / f"{name}.rejects.jsonl"
