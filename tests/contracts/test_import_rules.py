"""The map of ARCHITECTURE.md, held against the code: who may import whom, and where each heavy library may stand."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SERVICES = ("encoder_service", "retrieval_service", "ranking_service")
SERVING = (*SERVICES, "service_runtime")
# Package -> the packages of ours that it may import besides itself and the generated stubs.
ALLOWED = {
    "service_runtime": set(),
    "encoder_service": {"service_runtime"},
    "retrieval_service": {"service_runtime"},
    "ranking_service": {"service_runtime"},
    "zhiyin_offline": {"service_runtime", *SERVICES},
    "zhiyin_client": set(),
    "zhiyin_cli": {"service_runtime", "zhiyin_offline", "zhiyin_client", "encoder_service"},
    "benchmarks": {"service_runtime", "zhiyin_offline", "zhiyin_client", "zhiyin_cli", *SERVICES},
}
OURS = set(ALLOWED)
# Library -> files under serving packages that may import it.
ONE_PLACE = {
    "onnxruntime": {"encoder_service/onnx_backend.py", "ranking_service/sequence_encoder.py"},
    "tokenizers": {"encoder_service/tokenization.py"},
    "hnswlib": {"retrieval_service/hnsw_index.py"},
}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            yield node.module


def files(package: str) -> list[Path]:
    return sorted((ROOT / package).rglob("*.py"))


@pytest.mark.parametrize("package", sorted(ALLOWED))
def test_packages_import_only_what_the_map_allows(package: str) -> None:
    for path in files(package):
        for module in imports(path):
            top = module.split(".")[0]
            if top in OURS and top != package:
                assert top in ALLOWED[package], f"{path.relative_to(ROOT)} imports {module}"


@pytest.mark.parametrize("package", SERVING)
def test_serving_needs_no_training_library(package: str) -> None:
    for path in files(package):
        heavy = {"torch", "transformers", "sentence_transformers", "onnx", "onnxscript", "sklearn"}
        assert not heavy & {module.split(".")[0] for module in imports(path)}, path


@pytest.mark.parametrize("library", sorted(ONE_PLACE))
def test_each_native_library_stands_in_one_file(library: str) -> None:
    where = {
        str(path.relative_to(ROOT))
        for package in SERVING
        for path in files(package)
        if library in {module.split(".")[0] for module in imports(path)}
    }
    assert where == ONE_PLACE[library]


def test_domain_code_does_not_know_the_wire() -> None:
    """Pure algorithms import neither gRPC nor messages: replay, evaluation and tests call them with plain values."""
    pure = ["ranking_service/diversity", "ranking_service/scorers"]
    for folder in pure:
        for path in files(folder):
            tops = {module.split(".")[0] for module in imports(path)}
            assert not tops & {"grpc", "zhiyin", "sqlalchemy"}, path
