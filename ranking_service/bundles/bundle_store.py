"""Which bundle serves a catalogue. A switch is one assignment: a list is made with the old one or with the new one.

BUNDLES/CATALOG/ID/         a bundle
BUNDLES/CATALOG/active      the id of the one that serves; another replica's switch is seen within a second
"""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from ranking_service.bundles.bundle import (
    ACTIVE_FILE,
    BundleUnusable,
    Manifest,
    active_bundle,
    bundle_folders,
    read_file,
    read_manifest,
)
from ranking_service.bundles.loading import serving_bundle
from ranking_service.bundles.serving_bundle import BUILTIN, ServingBundle
from ranking_service.scorers.scorer import Scorer
from service_runtime.durable_files import make_folder, sync
from service_runtime.errors import FailedPrecondition, NotFound
from service_runtime.telemetry import get_logger

_LOOK_EVERY_S = 1.0

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class _Serving:
    """What serves a catalogue, and when the note of it was last looked at (monotonic) and changed (file time)."""

    bundle: ServingBundle
    looked_at: float
    noted_at: int


class BundleStore:
    """The bundles of all catalogues. Safe for threads; everything but `serving` of a known catalogue reads files.

    Args:
        folder: Of the bundles; replicas share it.
        builtin: Serves where nothing is active.
    """

    def __init__(self, folder: Path, builtin: Scorer) -> None:
        self._folder, self._builtin = folder, ServingBundle(BUILTIN, builtin)
        self._serving: dict[str, _Serving] = {}
        self._lock = threading.Lock()

    def serving(self, catalog: str) -> ServingBundle:
        """What makes the lists of a catalogue now. While a bundle cannot be read, the one before it goes on."""
        serving = self._serving.get(catalog)
        if serving is None or time.monotonic() - serving.looked_at > _LOOK_EVERY_S:
            with self._lock:
                serving = self._look(catalog)
        return serving.bundle

    def pinned(self, catalog: str, bundle: str) -> ServingBundle | None:
        """The bundle that made a list some time ago, whatever serves now; None: it cannot be loaded any more."""
        serving = self.serving(catalog)
        if serving.id == bundle:
            return serving
        try:
            return self._load(catalog, bundle)
        except (BundleUnusable, OSError):
            return None

    def bundles(self, catalog: str) -> list[Manifest]:
        """Every bundle that can be read, newest first."""
        found = []
        for folder in self._folders(catalog):
            try:
                found.append(read_manifest(folder))
            except BundleUnusable as error:
                log.warning("bundle_unusable", catalog=catalog, bundle=folder.name, error=str(error))
        return sorted(found, key=lambda manifest: (-manifest.created_at, manifest.id))

    def manifest(self, catalog: str, bundle: str) -> Manifest:
        """What a bundle says of itself.

        Raises:
            NotFound: There is no such bundle.
            FailedPrecondition: It cannot be read.
        """
        if bundle not in {folder.name for folder in self._folders(catalog)}:
            raise NotFound("bundle", bundle)
        try:
            return read_manifest(self._folder / catalog / bundle)
        except BundleUnusable as error:
            raise FailedPrecondition(str(error), reason="BUNDLE_UNUSABLE") from None

    def active(self, catalog: str) -> str:
        """Id of the bundle that serves; `builtin` when none does."""
        return self.serving(catalog).id

    def activate(self, catalog: str, bundle: str) -> None:
        """Makes a bundle the one that serves, `builtin` for none.

        Raises:
            NotFound: There is no such bundle.
            FailedPrecondition: It cannot be served; the one before goes on.
        """
        if bundle != BUILTIN and bundle not in {folder.name for folder in self._folders(catalog)}:
            raise NotFound("bundle", bundle)
        with self._lock:
            try:
                loaded = self._load(catalog, bundle)
            except BundleUnusable as error:
                raise FailedPrecondition(str(error), reason="BUNDLE_UNUSABLE") from None
            noted_at = self._note(catalog, bundle)
            self._serving[catalog] = _Serving(loaded, time.monotonic(), noted_at)
        log.info("bundle_activated", catalog=catalog, bundle=bundle)

    def _look(self, catalog: str) -> _Serving:
        known, noted_at = self._serving.get(catalog), _changed_at(self._folder / catalog / ACTIVE_FILE)
        if known is None or known.noted_at != noted_at:
            try:
                bundle = self._load(catalog, self._noted(catalog))
            except (BundleUnusable, OSError) as error:
                bundle = known.bundle if known is not None else self._builtin
                log.error("bundle_unusable", catalog=catalog, error=str(error), serving=bundle.id)
        else:
            bundle = known.bundle
        serving = self._serving[catalog] = _Serving(bundle, time.monotonic(), noted_at)
        return serving

    def _load(self, catalog: str, bundle: str) -> ServingBundle:
        if bundle == BUILTIN:
            return self._builtin
        folder = self._folder / catalog / bundle
        manifest = read_manifest(folder)
        return serving_bundle(manifest, {name: read_file(folder, manifest, name) for name in manifest.files})

    def _folders(self, catalog: str) -> list[Path]:
        return bundle_folders(self._folder / catalog)

    def _noted(self, catalog: str) -> str:
        return active_bundle(self._folder / catalog) or BUILTIN

    def _note(self, catalog: str, bundle: str) -> int:
        folder = self._folder / catalog
        make_folder(folder)
        staging = folder / f".{ACTIVE_FILE}.{os.getpid()}"
        staging.write_text(bundle + "\n")
        sync(staging)
        staging.replace(folder / ACTIVE_FILE)
        sync(folder)
        return _changed_at(folder / ACTIVE_FILE)


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0
