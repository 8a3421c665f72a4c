"""The file of inferred attributes: what it may say, and that a service does not start on a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from retrieval_service.__main__ import main
from retrieval_service.inference.inference_file import read_inference
from retrieval_service.inference.inferred_attribute import Inference
from service_runtime.label_files import LabelFileWrong

LABELS = (
    "labels: [{name: funny, descriptions: [搞笑, funny]}, {name: dark, descriptions: [黑暗, dark], threshold: 0.9}]"
)


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "inferred.yaml"
    path.write_text(text)
    return path


def test_attributes_are_read_with_their_labels_and_thresholds(tmp_path: Path) -> None:
    file = written(
        tmp_path,
        f"""
attributes:
  - {{name: mood, {LABELS}}}
  - {{name: moods, several: true, {LABELS}}}
catalogs:
  books:
    - {{name: level, threshold: 0.7, {LABELS}}}
  bare: []
""",
    )
    book = read_inference(file)
    mood, moods = book.of("films").attributes["mood"], book.of("films").attributes["moods"]
    assert [label.threshold for label in mood.labels.labels] == [0.5, 0.9]
    assert mood.value({"funny": 0.6, "dark": 0.4}) == "funny"
    assert mood.value({"funny": 0.2, "dark": 0.8}) is None
    assert [label.threshold for label in moods.labels.labels] == [0.25, 0.9]
    assert moods.value({"funny": 0.3, "dark": 0.95}) == ("dark", "funny")
    assert book.of("books").attributes["level"].labels.labels[0].threshold == 0.7
    assert not book.of("bare").attributes
    assert len({book.of(name).version for name in ("films", "books", "bare")}) == 3


def test_a_label_for_the_rest_is_no_value(tmp_path: Path) -> None:
    def read(rest: str) -> Inference:
        labels = f"[{{name: a, descriptions: [x]}}, {{name: b, descriptions: [y], rest: {rest}}}]"
        text = f"attributes:\n- {{name: one, labels: {labels}}}\n- {{name: more, several: true, labels: {labels}}}"
        return read_inference(written(tmp_path, text)).everywhere

    with_rest = read("true")
    for p, one, more in ((0.6, "a", ("a",)), (0.4, None, ("a",)), (0.1, None, None)):
        assert with_rest.attributes["one"].value({"a": p, "b": 1 - p}) == one
        assert with_rest.attributes["more"].value({"a": p, "b": 1 - p}) == more
    assert read("false").version != with_rest.version


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (f"attributes: [{{name: Mood, {LABELS}}}]", "attributes[0].name: is no attribute name"),
        (f"attributes: [{{name: a, {LABELS}}}, {{name: a, {LABELS}}}]", "[1] has the name 'a' of [0]"),
        (f"attributes: [{{name: a, several: 1, {LABELS}}}]", "attributes[0].several"),
        (f"attributes: [{{name: a, threshold: 0, {LABELS}}}]", "attributes[0].threshold"),
        ("attributes: [{name: a, labels: []}]", "attributes[0].labels"),
        ("attributes: [{name: a}]", "attributes[0].labels: is missing"),
        (
            "attributes: [{name: a, several: true, labels: ["
            + ", ".join(f"{{name: l{i}, descriptions: [x]}}" for i in range(65))
            + "]}]",
            "at most 64",
        ),
        ("attributes: [" + ", ".join(f"{{name: a{i}, {LABELS}}}" for i in range(17)) + "]", "16"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(LabelFileWrong) as wrong:
        read_inference(written(tmp_path, text))
    assert words in str(wrong.value)


def test_the_service_refuses_to_start_on_a_wrong_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = written(tmp_path, "attributes:\n  - name: mood\n    labels: []\n")
    monkeypatch.setattr("sys.argv", ["retrieval", "--inferred-attributes-file", str(file)])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert "line 3: attributes[0].labels" in capsys.readouterr().err
