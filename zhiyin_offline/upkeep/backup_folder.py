"""The layout of a backup: two SQLite files, the keys of the tokens, the models, and a manifest that says what is whole.

    manifest.json                 format, time, releases, what is inside, SHA-256 of every file
    ranking/users.sqlite3         users and events
    ranking/token.key
    retrieval/items.sqlite3       items and vectors
    retrieval/token.key
    models/NAME/...               what the vectors were made with

Indexes and statistics are not inside: the services make them from the stores.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from service_runtime.durable_files import sync

FORMAT = 1
MANIFEST = "manifest.json"
USERS = "ranking/users.sqlite3"
ITEMS = "retrieval/items.sqlite3"
KEYS = ("ranking/token.key", "retrieval/token.key")
MODELS = "models"


class BackupDamaged(Exception):
    """A backup is not what its manifest says; the message says where."""


@dataclass(frozen=True)
class BackupManifest:
    """What a backup holds.

    Attributes:
        format: Of the folder.
        release: The release of Zhiyin that wrote it.
        created_at: RFC 3339.
        rows: Rows by table, for each store file.
        files: SHA-256 by path.
    """

    format: int
    release: str
    created_at: str
    rows: Mapping[str, Mapping[str, int]]
    files: Mapping[str, str]

    def write(self, folder: Path) -> None:
        """Brings every file to the disk, then the manifest: a backup without one is none."""
        for name in self.files:
            sync(folder / name)
        (folder / MANIFEST).write_text(json.dumps(asdict(self), indent=1, ensure_ascii=False) + "\n")
        sync(folder / MANIFEST)
        for path in (*(p for p in folder.rglob("*") if p.is_dir()), folder):
            sync(path)


def read_whole(folder: Path) -> BackupManifest:
    """The manifest of a backup whose files are all as it says.

    Raises:
        BackupDamaged: It is not whole, or of a format that this release does not know.
    """
    try:
        told = json.loads((folder / MANIFEST).read_text())
        if told["format"] != FORMAT:
            raise BackupDamaged(f"{folder} has format {told['format']}; this release reads {FORMAT}")
        manifest = BackupManifest(**told)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise BackupDamaged(f"{folder} is no backup: {MANIFEST} cannot be read ({type(error).__name__})") from None
    for name, expected in manifest.files.items():
        file = folder / name
        if not file.is_file():
            raise BackupDamaged(f"{file} is missing")
        if sha256(file) != expected:
            raise BackupDamaged(f"{file} has another checksum than when it was written")
    return manifest


def sha256(path: Path) -> str:
    """Of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
