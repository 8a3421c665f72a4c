"""A model directory appears complete or not at all, and replaces nothing but a model directory."""

from __future__ import annotations

import importlib.metadata
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from encoder_service.model_directory import MANIFEST_FILE, ModelDirectoryError, ModelManifest, verify


class ExportError(Exception):
    """The export cannot be written. The message says what to change."""


def existing_export(out_dir: Path, key: str) -> ModelManifest | None:
    """The manifest when the directory needs no work. A damaged or older export is written anew.

    Raises:
        ExportError: The directory holds something else, which must not be replaced.
    """
    if not out_dir.exists():
        return None
    if not out_dir.is_dir() or (any(out_dir.iterdir()) and not (out_dir / MANIFEST_FILE).is_file()):
        raise ExportError(f"{out_dir} exists and is no model directory; choose another place")
    try:
        manifest = verify(out_dir)
    except ModelDirectoryError:
        return None
    return manifest if manifest.export_key == key else None


@contextmanager
def staged(out_dir: Path) -> Iterator[Path]:
    """A folder beside `out_dir` that takes its place at the end; removed when anything fails."""
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}-", dir=out_dir.parent))
    try:
        yield staging
        staging.chmod(0o755)  # mkdtemp makes it private; a server may run as another user
        if out_dir.exists():
            replaced = staging.with_name(staging.name + "-old")
            out_dir.rename(replaced)
            staging.rename(out_dir)
            shutil.rmtree(replaced)
        else:
            staging.rename(out_dir)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def library_versions(names: Sequence[str]) -> dict[str, str]:
    """Versions of those of these distributions that are installed."""
    versions = {}
    for name in names:
        try:
            versions[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return versions
