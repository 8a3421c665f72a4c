"""Where the services that `zhiyin up` runs keep what they keep."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from service_runtime.sql import sqlite_url


@dataclass(frozen=True)
class Locations:
    """Folders and databases of one deployment.

    Attributes:
        root: The data directory.
        item_store_url: SQLAlchemy URL of retrieval's store; empty: the SQLite file in the data directory.
        user_store_url: The same of ranking's.
    """

    root: Path
    item_store_url: str = ""
    user_store_url: str = ""

    @property
    def retrieval(self) -> Path:
        """Retrieval's data directory."""
        return self.root / "retrieval"

    @property
    def ranking(self) -> Path:
        """Ranking's data directory."""
        return self.root / "ranking"

    @property
    def models(self) -> Path:
        """Exported models."""
        return self.root / "models"

    @property
    def item_file(self) -> Path:
        """Retrieval's SQLite file, where it uses one."""
        return self.retrieval / "items.sqlite3"

    @property
    def user_file(self) -> Path:
        """Ranking's SQLite file, where it uses one."""
        return self.ranking / "users.sqlite3"

    @property
    def items(self) -> str:
        """URL of the item store."""
        return self.item_store_url or sqlite_url(self.item_file)

    @property
    def users(self) -> str:
        """URL of the user store."""
        return self.user_store_url or sqlite_url(self.user_file)
