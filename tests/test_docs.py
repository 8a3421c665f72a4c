"""The documents, held against the code: tables, links, commands."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from service_runtime import errors

ROOT = Path(__file__).parents[1]
FOLDERS = (
    *("service_runtime", "encoder_service", "retrieval_service", "ranking_service", "zhiyin_offline", "zhiyin_cli"),
    "zhiyin_client",
    *("tests", "docs", "scripts", "protos", "examples", "benchmarks"),
)
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")])
DOCUMENTS = [path for path in DOCUMENTS if "node_modules" not in path.parts]


def leaves(kind: type[errors.ZhiyinError]) -> list[type[errors.ZhiyinError]]:
    return [cls for child in kind.__subclasses__() for cls in (child, *leaves(child))]


def test_the_error_table_is_the_error_tree() -> None:
    rows = re.findall(r"^\| (\w+) \| ([A-Z_]+) \| (.*?) \|", (ROOT / "docs/errors.md").read_text(), re.MULTILINE)
    table = {name: code for name, code, _ in rows}
    ours = [cls for cls in leaves(errors.ZhiyinError) if cls.__module__ == "service_runtime.errors"]
    assert table == {cls.__name__: cls.code.name for cls in ours}
    fixed = {name: reason.strip("`") for name, _, reason in rows if re.fullmatch(r"`\w+`", reason)}
    for cls in ours:
        if cls.__name__ in fixed and "reason" in vars(cls):
            assert fixed[cls.__name__] == cls.reason


def test_the_error_tree_in_the_docstring_is_the_one_in_the_code() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or ""))
    assert drawn == {cls.__name__ for cls in leaves(errors.ZhiyinError) if cls.__module__ == "service_runtime.errors"}


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_and_named_files_exist(path: Path) -> None:
    text = path.read_text()
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", text):
        if "://" not in target:
            assert (path.parent / target).exists(), f"{path.name} links to {target}"
    for name in re.findall(rf"`((?:{'|'.join(FOLDERS)})/[\w./-]*\w)`", text):
        assert (ROOT / name).exists(), f"{path.name} names {name}"


def test_the_make_targets_of_the_readme_exist() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"\bmake ([a-z][\w-]*)", (ROOT / "README.md").read_text()))
    assert named <= targets
    assert {"demo", "test"} <= named or not named
