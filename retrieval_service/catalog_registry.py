"""The catalogues of the service, by name, each with what is in memory of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

from retrieval_service.directory import Directory
from retrieval_service.item_store import CatalogRow
from retrieval_service.named_spaces import LiveSpaces
from retrieval_service.vector_rows import SpaceRow
from service_runtime.errors import NotFound

DEFAULT_CATALOG = "default"


@dataclass(slots=True)
class CatalogState:
    """One catalogue.

    Attributes:
        row: As stored.
        directory: Ids and filters.
        space: The semantic space; None until the first vector.
        spaces: The live versions of all others; replaced as a whole, so a reader that takes it once sees one state.
    """

    row: CatalogRow
    directory: Directory
    space: SpaceRow | None = None
    spaces: LiveSpaces = field(default_factory=LiveSpaces)


class CatalogRegistry:
    """Catalogues by name. Changed by the writer's thread; a change is one assignment, so readers need no lock."""

    def __init__(self) -> None:
        self._by_name: dict[str, CatalogState] = {}
        self._by_id: dict[int, CatalogState] = {}

    def __iter__(self) -> Iterator[CatalogState]:
        return iter([state for _, state in sorted(self._by_name.items(), key=lambda entry: entry[0])])

    def get(self, name: str) -> CatalogState:
        """A catalogue.

        Raises:
            NotFound: There is none of that name.
        """
        state = self._by_name.get(name)
        if state is None:
            raise NotFound("catalog", name)
        return state

    def find(self, catalog_id: int) -> CatalogState | None:
        """A catalogue by its id; None when it was dropped."""
        return self._by_id.get(catalog_id)

    def put(self, state: CatalogState) -> None:
        """Adds a catalogue."""
        self._by_name[state.row.name] = state
        self._by_id[state.row.catalog_id] = state

    def drop(self, catalog_id: int) -> None:
        """Forgets a catalogue."""
        state = self._by_id.pop(catalog_id, None)
        if state is not None and self._by_name.get(state.row.name) is state:
            del self._by_name[state.row.name]
