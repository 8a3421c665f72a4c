"""A file of labels: read as it is written, or refused with every mistake and its line."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import pytest
from pydantic import Field

from service_runtime.label_files import FilePart, LabelFileWrong, Labels, WrittenLabel, label_set, read_label_file
from service_runtime.label_sets import Label


class Shape(FilePart):
    labels: Labels[WrittenLabel]
    size: Annotated[float, Field(ge=0, le=10)] = 1.0


def written(tmp_path: Path, text: str | bytes) -> Path:
    path = tmp_path / "labels.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


def faults(tmp_path: Path, text: str | bytes) -> list[str]:
    path = written(tmp_path, text)
    with pytest.raises(LabelFileWrong) as wrong:
        read_label_file(path, Shape)
    return [line.removeprefix(str(path)).lstrip(":, ") for line in str(wrong.value).splitlines()]


def test_labels_are_read_in_any_language_with_thresholds_of_their_own(tmp_path: Path) -> None:
    path = written(
        tmp_path,
        """
labels:
  - {name: new, descriptions: [what is new, 最新上架], examples: [新歌], threshold: 0.8}
  - name: 热门
    descriptions:
      - 热门
size: 3
""",
    )
    read = read_label_file(path, Shape)
    assert read.size == 3
    assert label_set(read.labels, 0.5).labels == (
        Label("new", ("what is new", "最新上架"), ("新歌",), 0.8),
        Label("热门", ("热门",), (), 0.5),
    )


def test_every_mistake_is_named_with_its_line(tmp_path: Path) -> None:
    found = faults(
        tmp_path,
        """labels:
  - name: unknown
    descriptions: ["a", " "]
    colour: red
  - name: b
    name: c
    descriptions: []
    threshold: 1.5
  - descriptions: [2024]
    examples: "none"
size: 11
""",
    )
    places = [line.split(": ")[0] for line in found]
    assert places == [
        "line 2",
        "line 3",
        "line 4",
        "line 6",
        "line 7",
        "line 8",
        "line 9",
        "line 9",
        "line 10",
        "line 11",
    ]
    for words in ("labels[0].colour", "labels[1].name: stands here twice", "labels[2].name", "size"):
        assert any(words in line for line in found), words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "labels"),
        ("labels: [", "is not YAML"),
        ("- a\n- b\n", "the file"),
        (b"\xff\xfe\x00", "is not UTF-8"),
        ("labels: &a [*a]", "too deeply"),
        ("labels: !!python/object:os.system {}", "labels"),
        ("labels: [{name: a, descriptions: [x]}]", "at least 2"),
        ("labels: [{name: a, descriptions: [x]}, {name: a, descriptions: [y]}]", "[1] has the name 'a' of [0]"),
        (
            "labels: [{name: a, descriptions: [x]}, {name: b, descriptions: [y], threshold: .nan}]",
            "labels[1].threshold",
        ),
        (f"labels: [{{name: {'n' * 65}, descriptions: [x]}}, {{name: b, descriptions: [y]}}]", "65 bytes"),
        (f"labels: [{{name: a, descriptions: [{'x' * 2049}]}}, {{name: b, descriptions: [y]}}]", "2049 bytes"),
        (f"labels: [{', '.join(f'{{name: l{i}, descriptions: [x]}}' for i in range(257))}]", "256"),
        ("deep: " + "[" * 40 + "]" * 40, "too deeply"),
    ],
)
def test_what_cannot_be_used_is_refused(tmp_path: Path, text: str | bytes, words: str) -> None:
    assert any(words in line for line in faults(tmp_path, text)), faults(tmp_path, text)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(LabelFileWrong, match=r"nowhere\.yaml: No such file"):
        read_label_file(tmp_path / "nowhere.yaml", Shape)


def test_a_version_changes_with_every_word_and_with_nothing_else(tmp_path: Path) -> None:
    base = "labels: [{name: a, descriptions: [x, y]}, {name: b, descriptions: [z], threshold: 0.5}]"
    version = label_set(read_label_file(written(tmp_path, base), Shape).labels, 0.5).version
    same = base.replace(", threshold: 0.5", "") + "\nsize: 2"
    assert label_set(read_label_file(written(tmp_path, same), Shape).labels, 0.5).version == version
    for other in (base.replace("x, y", "xy"), base.replace("0.5", "0.6"), base.replace("name: a", "name: c")):
        assert label_set(read_label_file(written(tmp_path, other), Shape).labels, 0.5).version != version
