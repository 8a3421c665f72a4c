"""One bundle on disk: a manifest with a checksum of every other file. Written once, then never changed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from service_runtime.durable_files import make_folder, sync

FORMAT = 1
MANIFEST = "manifest.json"
ACTIVE_FILE = "active"
"""Beside the bundles of a catalogue: the id of the one that serves."""
RANKER_FILE = "ranker.txt"
FEATURES_FILE = "features.json"
SEQUENCE_FILE = "sequence.onnx"
SEQUENCE_ITEMS_FILE = "sequence_items.npz"

Serves = Literal["builtin", "blend", "ranker"]


class BundleUnusable(Exception):
    """The bundle cannot be served; the message says why."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a bundle is and why it is so.

    Attributes:
        id: Unique in the catalogue; names the folder.
        catalog: Whose events it was learned from.
        created_at: Unix seconds.
        serves: `builtin`: the weights of the house were best; `blend`: the learned weights; `ranker`: the learned
            ranker over the best of the blend.
        weights: Learned weight of each source's z-scores, by the lower-case name of the source.
        rerank_depth: Candidates that the ranker orders, the best by the blend.
        feature_names: Columns that the ranker was trained on.
        new_items: Added to the relevance of a candidate nobody has acted on, see `LearnedScorer`.
        knob: What the default diversity stands for: `weight` and `kept` of `diversity.knob.Knob`; empty: as before any
            training.
        calibration: From the relevance to the chance that the user acts on what is shown, as
            `scorers.calibration` reads it; empty: unknown.
        metrics: Of what serves, on cases that it had not learned from.
        spaces: Version of each derived space it needs.
        evidence: What was compared to choose, for people.
        files: SHA-256 of each file, by name.
    """

    id: str
    catalog: str
    created_at: float
    serves: Serves
    weights: Mapping[str, float] = field(default_factory=dict)
    rerank_depth: int = 100
    feature_names: tuple[str, ...] = ()
    new_items: float = 0.0
    knob: Mapping[str, float] = field(default_factory=dict)
    calibration: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, float] = field(default_factory=dict)
    spaces: Mapping[str, int] = field(default_factory=dict)
    evidence: Mapping[str, Any] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)


def write_bundle(folder: Path, manifest: Manifest, files: Mapping[str, bytes]) -> Manifest:
    """Writes a bundle into the catalogue's folder: it is there as a whole or not at all. Returns its manifest.

    Args:
        folder: Of the catalogue's bundles.
        manifest: Without `files`.
        files: Contents by name.
    """
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    whole = Manifest(**{**_fields(manifest), "files": digests})
    make_folder(folder)
    staging = folder / f".{manifest.id}.{os.getpid()}"
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir()
    text = json.dumps({"format": FORMAT, **_fields(whole)}, ensure_ascii=False, indent=1)
    for name, content in {**files, MANIFEST: text.encode()}.items():
        (staging / name).write_bytes(content)
        sync(staging / name)
    sync(staging)
    staging.rename(folder / manifest.id)
    sync(folder)
    return whole


def read_manifest(folder: Path) -> Manifest:
    """Reads a bundle's manifest.

    Raises:
        BundleUnusable: It is missing, damaged, or of a newer format.
    """
    try:
        content = json.loads((folder / MANIFEST).read_bytes())
        if content.pop("format") != FORMAT:
            raise BundleUnusable(f"bundle {folder.name} is of another format than this release reads")
        return Manifest(**{**content, "feature_names": tuple(content["feature_names"])})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleUnusable(f"bundle {folder.name} cannot be read: {error}") from None


def read_file(folder: Path, manifest: Manifest, name: str) -> bytes:
    """A file of a bundle.

    Raises:
        BundleUnusable: It is missing or not what was written.
    """
    try:
        content = (folder / name).read_bytes()
    except OSError as error:
        raise BundleUnusable(f"bundle {manifest.id}: {name} cannot be read: {error.strerror}") from None
    if hashlib.sha256(content).hexdigest() != manifest.files.get(name):
        raise BundleUnusable(f"bundle {manifest.id}: {name} is damaged; train again or activate another bundle")
    return content


def bundle_folders(folder: Path) -> list[Path]:
    """The bundles in a catalogue's folder, in no promised order; none where there is no such folder."""
    return [f for f in folder.iterdir() if f.is_dir() and not f.name.startswith(".")] if folder.is_dir() else []


def active_bundle(folder: Path) -> str:
    """Id of the bundle that is noted as serving; empty when none is."""
    note = folder / ACTIVE_FILE
    return note.read_text().strip() if note.exists() else ""


def _fields(manifest: Manifest) -> dict[str, Any]:
    return asdict(manifest)
