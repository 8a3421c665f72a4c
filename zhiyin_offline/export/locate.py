"""Finds a checkpoint by what a person types: a folder, an installed package, or a hub id."""

from __future__ import annotations

import importlib.metadata
from dataclasses import dataclass
from pathlib import Path

WEIGHT_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


class CheckpointError(Exception):
    """A checkpoint cannot be found, read or exported. The message says what to change."""


@dataclass(frozen=True)
class Location:
    """Where a checkpoint lies.

    Attributes:
        name: For people: the folder's name, the package's, or the hub id.
        folder: Holds config.json and the weights.
    """

    name: str
    folder: Path


def locate(source: str) -> Location:
    """Finds the checkpoint.

    Args:
        source: A folder, the name of an installed package that carries a model, or a hub id (downloaded).

    Raises:
        CheckpointError: None of the three.
    """
    folder = Path(source).expanduser()
    if folder.is_dir():
        return Location(folder.resolve().name, _require_checkpoint(folder.resolve()))
    try:
        distribution = importlib.metadata.distribution(source)
    except (importlib.metadata.PackageNotFoundError, ValueError):
        return Location(source, _download(source))
    return Location(source, _folder_in(distribution, source))


def _require_checkpoint(folder: Path) -> Path:
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder} has no config.json: it is no Hugging Face checkpoint")
    if not any((folder / name).is_file() for name in WEIGHT_FILES):
        raise CheckpointError(f"{folder} has no weights: expected one of {', '.join(WEIGHT_FILES)}")
    return folder


def _folder_in(distribution: importlib.metadata.Distribution, source: str) -> Path:
    weights = [file for file in distribution.files or () if file.name in WEIGHT_FILES]
    folders = sorted({Path(str(distribution.locate_file(file))).resolve().parent for file in weights})
    folders = [folder for folder in folders if (folder / "config.json").is_file()]
    if not folders:
        raise CheckpointError(f"the installed package {source!r} carries no Hugging Face checkpoint")
    if len(folders) > 1:
        listed = ", ".join(str(folder) for folder in folders)
        raise CheckpointError(f"the installed package {source!r} carries several models; name a folder: {listed}")
    return folders[0]


def _download(source: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        folder = snapshot_download(
            source, allow_patterns=["*.json", "*/config.json", "model*.safetensors", "pytorch_model.bin"]
        )
    except HFValidationError:
        raise CheckpointError(f"{source!r} is no folder, no installed package and no valid hub id") from None
    except Exception as error:
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise CheckpointError(
            f"{source!r} is no folder and no installed package, and could not be loaded from the hub: {first_line}"
        ) from error
    return _require_checkpoint(Path(folder))
