from pathlib import Path

from matura.core import intact
from matura.core.artifact import LISTED_FILES, Artifact, begin, load, raw_input


def make(place: Path, kind: str, **inputs: object) -> Artifact:
    draft = begin(place, kind=kind, stage=f"make-{kind}", version=1, config={}, inputs=inputs)
    (draft.path / "data.bin").write_text(place.name)
    return draft.commit({"line": ""})


def chain(root: Path) -> Artifact:
    """raw -> corpus -> model -> exam; the exam reads the corpus too."""
    (root / "notes").mkdir()
    (root / "notes" / "a.md").write_text("one")
    run = root / "runs" / "adapt"
    corpus = make(run / "documents-1", "corpus", path=raw_input(root / "notes"))
    model = make(run / "tuned-2", "model", corpus=corpus)
    return make(run / "exam-3", "evaluation", model=model, corpus=corpus)


def wrong(artifact: Artifact) -> dict[str, str]:
    return {Path(one.name).name: one.wrong for one in intact.check(artifact)}


def test_what_nobody_touched_is_intact_and_each_is_told_once_the_oldest_first(tmp_path: Path) -> None:
    found = list(intact.check(chain(tmp_path)))
    assert [one.kind for one in found] == ["raw", "corpus", "model", "evaluation"]
    assert not any(one.wrong for one in found)


def test_a_changed_byte_is_found_wherever_it_is(tmp_path: Path) -> None:
    exam = chain(tmp_path)
    weights = tmp_path / "runs/adapt/tuned-2/data.bin"
    weights.write_text(weights.read_text().swapcase())  # as many bytes as before
    found = wrong(exam)
    assert "data.bin: its content was changed" in found["tuned-2"]
    assert not found["documents-1"]
    assert not found["exam-3"]
    assert not found["notes"]

    (tmp_path / "notes" / "a.md").write_text("two")
    assert wrong(exam)["notes"] == "Changed since: a.md."


def test_a_folder_of_many_files_and_what_is_gone(tmp_path: Path) -> None:
    many = tmp_path / "many"
    many.mkdir()
    for number in range(LISTED_FILES + 1):
        (many / f"{number}.md").write_text(str(number))
    corpus = make(tmp_path / "runs/r/corpus-1", "corpus", path=raw_input(many))
    assert "files" not in corpus.inputs["path"]
    model = make(tmp_path / "runs/r/model-2", "model", corpus=corpus)
    (many / "7.md").write_text("8")
    assert wrong(model)["many"] == "Its files are not those of then."
    (many / "7.md").write_text("7")
    assert not any(wrong(load(model.path)).values())

    corpus.path.rename(tmp_path / "elsewhere")
    assert "is gone" in wrong(model)["corpus-1"]
