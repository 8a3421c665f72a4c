"""The intents file: what it may say, and that a service does not start on a wrong one."""

from __future__ import annotations

from pathlib import Path

import pytest

from ranking_service.__main__ import main
from ranking_service.candidate import SourceKind
from ranking_service.intents.intents_file import read_intents
from service_runtime.label_files import LabelFileWrong

EXAMPLE = Path(__file__).parents[3] / "examples" / "intents.yaml"


def test_the_example_file_is_right_and_its_last_label_moves_nothing() -> None:
    book = read_intents(EXAMPLE)
    shelf = book.of("anything")
    assert shelf is not None
    assert shelf.intents["new"].factors[SourceKind.FRESH] == 10
    assert shelf.intents["something_specific"].factors == {}
    assert all(label.threshold >= 0.6 for label in shelf.labels.labels)


def test_a_catalogue_may_have_labels_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "intents.yaml"
    file.write_text(
        """
catalogs:
  books:
    - {name: exam, descriptions: [考试], weights: {popular: 3}, diversity: 0, exploration: 1}
    - {name: leisure, descriptions: [消遣]}
"""
    )
    book = read_intents(file)
    assert book.of("films") is None
    books = book.of("books")
    assert books is not None
    assert books.intents["exam"].factors == {SourceKind.POPULAR: 3.0}
    assert (books.intents["exam"].diversity, books.intents["exam"].exploration) == (0.0, 1.0)


@pytest.mark.parametrize(
    "wrong",
    [
        "weights: {exploration: 2}",
        "weights: {popular: -1}",
        "weights: {popular: 10.5}",
        "weights: {popular: many}",
        "diversity: 1.1",
        "exploration: -0.1",
        "explore: 0.1",
    ],
)
def test_what_an_intent_does_is_checked(tmp_path: Path, wrong: str) -> None:
    file = tmp_path / "intents.yaml"
    file.write_text(f"intents:\n  - {{name: a, descriptions: [x]}}\n  - name: b\n    descriptions: [y]\n    {wrong}\n")
    with pytest.raises(LabelFileWrong, match=r"line 5: intents\[1\]\.\w+"):
        read_intents(file)


def test_the_service_refuses_to_start_on_a_wrong_file_and_names_every_mistake(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "intents.yaml"
    file.write_text(
        "intents:\n  - {name: a, descriptions: []}\n  - {name: b, descriptions: [y], weights: {likes: 2}}\n"
    )
    monkeypatch.setattr("sys.argv", ["ranking", "--data-dir", str(tmp_path), "--intents-file", str(file)])
    with pytest.raises(SystemExit) as stopped:
        main()
    said = capsys.readouterr().err
    assert stopped.value.code == 2
    assert "line 2: intents[0].descriptions" in said
    assert "line 3: intents[1].weights.likes" in said
