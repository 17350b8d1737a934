import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from matura.core import lineage
from matura.core.artifact import Artifact, begin, load, raw_input


def make(place: Path, kind: str, line: str = "", **inputs: Any) -> Artifact:
    draft = begin(
        place, kind=kind, stage=f"make-{kind}", version=1, config={"a": {"b": 1}, "c": None}, inputs=inputs
    )
    (draft.path / "data.bin").write_text(place.name)
    return draft.commit({"line": line, "score": 0.123456789})


@pytest.fixture
def chain(tmp_path: Path) -> Artifact:
    """raw -> corpus -> tuned -> exam; the exam also looks at the base model."""
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.md").write_text("one")
    (tmp_path / "base.gguf").write_text("weights")
    run = tmp_path / "work" / "runs" / "adapt"
    base = make(
        tmp_path / "work" / "models" / "smollm2", "model", "135M", file=raw_input(tmp_path / "base.gguf")
    )
    corpus = make(run / "documents-1", "corpus", "1 document", path=raw_input(tmp_path / "notes"))
    tuned = make(run / "tuned-2", "model", "tuned", model=base, corpus=corpus)
    return make(run / "exam-3", "evaluation", "passed", model=tuned, parent=base)


def test_the_tree_leads_to_the_raw_files(chain: Artifact, tmp_path: Path) -> None:
    node = lineage.tree(chain)
    tuned = node["inputs"]["model"]
    assert (node["kind"], node["name"], node["line"]) == ("evaluation", "adapt/exam-3", "passed")
    assert tuned["inputs"]["corpus"]["inputs"]["path"]["name"] == str(tmp_path / "notes")
    assert tuned["inputs"]["model"]["inputs"]["file"]["line"] == "1 file, 7 B"
    assert node["inputs"]["parent"]["state"] == "above"
    json.dumps(node)


def test_the_drawing(chain: Artifact, tmp_path: Path) -> None:
    node = lineage.tree(chain)
    base, notes = load(tmp_path / "work/models/smollm2"), raw_input(tmp_path / "notes")
    tuned, corpus = chain.input("model"), chain.input("model").input("corpus")
    weights = raw_input(tmp_path / "base.gguf")
    assert lineage.draw(node).splitlines() == [
        f"evaluation adapt/exam-3 [{chain.id[:6]}]  passed",
        f"├─ model: model adapt/tuned-2 [{tuned.id[:6]}]  tuned",
        f"│  ├─ corpus: corpus adapt/documents-1 [{corpus.id[:6]}]  1 document",
        f"│  │  └─ path: raw {tmp_path}/notes [{notes.id[:6]}]  1 file, 3 B",
        f"│  └─ model: model smollm2 [{base.id[:6]}]  135M",
        f"│     └─ file: raw {tmp_path}/base.gguf [{weights.id[:6]}]  1 file, 7 B",
        f"└─ parent: model smollm2 [{base.id[:6]}]  135M  (see above)",
    ]


def test_what_was_fetched_is_called_as_the_settings_call_it(tmp_path: Path) -> None:
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("abc")
    inputs = {"sources.wiki.path": raw_input(tmp_path / "notes"), "path": raw_input(tmp_path / "notes")}
    config = {
        "sources": {"wiki": {"path": "wheel:some==1.0/texts#sha256=ab"}},
        "path": str(tmp_path / "notes"),
    }
    made = begin(
        tmp_path / "made", kind="corpus", stage="curate", version=1, config=config, inputs=inputs
    ).commit({})
    nodes = lineage.tree(made)["inputs"]
    assert nodes["sources.wiki.path"]["name"] == "wheel:some==1.0/texts#sha256=ab"
    assert nodes["path"]["name"] == nodes["sources.wiki.path"]["path"] == str(tmp_path / "notes")


def test_what_is_missing_or_replaced_is_shown(chain: Artifact, tmp_path: Path) -> None:
    run = tmp_path / "work" / "runs" / "adapt"
    shutil.rmtree(tmp_path / "notes")
    shutil.rmtree(tmp_path / "work" / "models" / "smollm2")
    make(tmp_path / "work" / "models" / "smollm2", "model", "another")
    text = lineage.draw(lineage.tree(chain))
    assert "notes" in text
    assert text.count("MISSING") == 1
    assert text.count("CHANGED: something else has taken its place") == 2
    shutil.rmtree(run / "tuned-2")
    assert "model: model adapt/tuned-2" in lineage.draw(lineage.tree(chain))
    assert lineage.tree(chain)["inputs"]["model"]["state"] == "missing"
    (run / "tuned-2").mkdir()
    (run / "tuned-2" / "artifact.json").write_text("{")
    assert lineage.tree(chain)["inputs"]["model"]["state"] == "missing"


def test_a_record_that_names_itself_as_its_input_ends(tmp_path: Path) -> None:
    made = make(tmp_path / "a", "model")
    path = made.path / "artifact.json"
    record = json.loads(path.read_text())
    record["inputs"]["self"] = {"kind": "model", "path": str(made.path), "id": made.id}
    path.write_text(json.dumps(record))
    assert lineage.draw(lineage.tree(load(made.path))).count("see above") == 1


def test_the_page_about_one_artifact(chain: Artifact) -> None:
    page = lineage.show(chain.input("model"))
    for part in (
        "model adapt/tuned-2",
        "make-model (version 1)",
        "a.b  1",
        "c    -",
        "score  0.123457",
        "data.bin",
    ):
        assert part in page
    assert "corpus adapt/documents-1" in page
    assert "environment" in page


def test_the_page_shortens_long_lists_and_values(tmp_path: Path) -> None:
    draft = begin(tmp_path / "a", kind="x", stage="y", version=1, config={"text": "z" * 500}, inputs={})
    for number in range(20):
        (draft.path / f"{number:02d}.bin").write_text("x")
    page = lineage.show(draft.commit({}))
    assert "and 8 more" in page
    assert "z" * 157 + "..." in page
    assert "z" * 158 not in page
