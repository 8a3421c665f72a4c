"""The model directory: what `zhiyin model export` writes and this service serves.

    model.onnx       token ids and mask -> one vector a text; pooling and normalisation inside
    tokenizer.json   without padding and truncation, which belong to the server
    parity.json      texts, their token ids and PyTorch's vectors, checked at start on the provider that serves
    manifest.json    what it all is; holds the SHA-256 of the other files and of itself

Needs neither torch nor transformers nor onnxruntime.
"""

from __future__ import annotations

import base64
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError

FORMAT_VERSION = 1
GRAPH_FILE, TOKENIZER_FILE, PARITY_FILE, MANIFEST_FILE = "model.onnx", "tokenizer.json", "parity.json", "manifest.json"

Precision = Literal["fp32", "fp16", "int8", "int4"]
PromptRole = Literal["query", "passage"]
Role = Literal["query", "passage", "raw"]


class ModelDirectoryError(Exception):
    """A model directory is missing, damaged, changed, or of another format."""


class ParityReport(BaseModel):
    """How far the exported graph is from PyTorch over the parity texts."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    max_abs_difference: float
    min_cosine: float


class ModelManifest(BaseModel):
    """What a model directory holds.

    Attributes:
        format_version: Of the directory; another one is refused.
        name: For people.
        space_fingerprint: Weights, tokenizer, pooling, prompts, dimensions. Equal for every precision of a checkpoint.
        export_key: The space plus precision and export recipe; an export with the same key has nothing to do.
        dimensions: Components of a vector.
        max_tokens: Tokens of a text, prompt and special tokens included.
        pad_token_id: Fills the rows of a batch.
        pooling: `mean`, `cls` or `max`.
        normalized: Whether vectors have length 1.
        prompts: Put before a text, by role; a role without a prompt is absent.
        precision: Of the weights in the graph; vectors are always fp32.
        exported_with: Versions of the libraries that wrote the graph.
        parity: Measured at export on the CPU.
        files: SHA-256 of each other file, by name.
        digest: SHA-256 of this manifest without the digest.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format_version: int
    name: Annotated[str, Field(min_length=1)]
    space_fingerprint: Annotated[str, Field(min_length=16)]
    export_key: str
    dimensions: Annotated[int, Field(gt=0)]
    max_tokens: Annotated[int, Field(gt=2)]
    pad_token_id: Annotated[int, Field(ge=0)]
    pooling: Literal["mean", "cls", "max"]
    normalized: bool
    prompts: dict[PromptRole, str]
    precision: Precision
    exported_with: dict[str, str]
    parity: ParityReport
    files: dict[str, str]
    digest: str = ""

    def sealed(self) -> ModelManifest:
        """A copy with its digest."""
        return self.model_copy(update={"digest": self._computed_digest()})

    def is_intact(self) -> bool:
        """Whether the digest is that of the content."""
        return self.digest == self._computed_digest()

    def build_fingerprint(self, provider: str, runtime_version: str) -> str:
        """Identifies the precise build: the space, the graph, and what computes it. 32 hexadecimal digits."""
        parts = (self.space_fingerprint, self.precision, self.files.get(GRAPH_FILE, ""), provider, runtime_version)
        return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]

    def _computed_digest(self) -> str:
        content = self.model_dump(mode="json", exclude={"digest"})
        return hashlib.sha256(json.dumps(content, sort_keys=True, ensure_ascii=False).encode()).hexdigest()


@dataclass(frozen=True)
class ParityText:
    """A text whose vector is known.

    Attributes:
        text: The text, without prompt.
        role: Decides the prompt.
        token_ids: What the tokenizer must give.
    """

    text: str
    role: Role
    token_ids: tuple[int, ...]


@dataclass(frozen=True)
class ParitySet:
    """Texts and PyTorch's vectors for them.

    Attributes:
        texts: The texts.
        vectors: One row a text, float32.
    """

    texts: tuple[ParityText, ...]
    vectors: NDArray[np.float32]

    def to_json(self) -> str:
        """The content of parity.json."""
        rows, dimensions = self.vectors.shape
        return json.dumps(
            {
                "texts": [{"text": t.text, "role": t.role, "token_ids": t.token_ids} for t in self.texts],
                "rows": rows,
                "dimensions": dimensions,
                "vectors_float32_base64": base64.b64encode(self.vectors.astype("<f4").tobytes()).decode(),
            },
            ensure_ascii=False,
            indent=1,
        )

    @classmethod
    def from_json(cls, content: str) -> ParitySet:
        """Reads what `to_json` wrote."""
        raw = json.loads(content)
        flat = np.frombuffer(base64.b64decode(raw["vectors_float32_base64"]), dtype="<f4")
        texts = tuple(ParityText(t["text"], t["role"], tuple(t["token_ids"])) for t in raw["texts"])
        return cls(texts, flat.reshape(raw["rows"], raw["dimensions"]).astype(np.float32))


def read_manifest(directory: Path) -> ModelManifest:
    """Reads the manifest alone; cheap.

    Raises:
        ModelDirectoryError: No manifest, another format, or a manifest changed by hand.
    """
    path = directory / MANIFEST_FILE
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelDirectoryError(
            f"{directory} is no model directory: it has no {MANIFEST_FILE}; write one with `zhiyin model export`"
        ) from None
    except (OSError, ValueError) as error:
        raise ModelDirectoryError(f"{path} cannot be read: {error}") from error
    version = raw.get("format_version") if isinstance(raw, dict) else None
    if version != FORMAT_VERSION:
        raise ModelDirectoryError(
            f"{path} has format {version!r}, this release reads {FORMAT_VERSION}; export it again"
        )
    try:
        manifest = ModelManifest.model_validate(raw)
    except ValidationError as error:
        raise ModelDirectoryError(f"{path} is not valid: {error}") from error
    if not manifest.is_intact():
        raise ModelDirectoryError(f"{path} was changed after the export (its digest does not match); export it again")
    return manifest


def verify(directory: Path) -> ModelManifest:
    """Reads the manifest and checks every file against its SHA-256 (about half a second for 160 MB).

    Raises:
        ModelDirectoryError: As `read_manifest`, or a file is missing, damaged or changed.
    """
    manifest = read_manifest(directory)
    missing = {GRAPH_FILE, TOKENIZER_FILE, PARITY_FILE} - manifest.files.keys()
    if missing:
        raise ModelDirectoryError(f"{directory / MANIFEST_FILE} does not list {', '.join(sorted(missing))}")
    for name, expected in manifest.files.items():
        path = directory / name
        if not path.is_file():
            raise ModelDirectoryError(f"{path} is missing; export the model again")
        if sha256_of(path) != expected:
            raise ModelDirectoryError(f"{path} is damaged or was changed (SHA-256 differs); export the model again")
    return manifest


def read_parity(directory: Path) -> ParitySet:
    """The texts with known vectors of a verified directory."""
    return ParitySet.from_json((directory / PARITY_FILE).read_text(encoding="utf-8"))


def sha256_of(path: Path) -> str:
    """Hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
