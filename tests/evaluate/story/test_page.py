"""The page of a run: the whole story, of a finished run, of one that a gate ended, and of one that was killed."""

import json
import re
import sys
from subprocess import run as process

import pytest

from matura.core.errors import MaturaError, ModelNotFound
from matura.core.workspace import Workspace
from matura.evaluate.story import chapters, intake, learning, page, verdicts
from tests.evaluate.story import runs
from tests.evaluate.story.runs import NASTY


def section(text, name):
    """The text of a section, without tags."""
    found = re.search(rf'<h2 id="{name}">(.*?)(<h2|</main>)', text, re.DOTALL)
    assert found, name
    return " ".join(re.sub(r"<[^>]+>", " ", found[1]).split())


def told(workspace, **more):
    return page.write(workspace, "life", **more).read_text("utf-8")


def test_a_finished_run_tells_all_of_it(tmp_path):
    text = told(runs.small(tmp_path))
    assert "<strong>Finished.</strong>" in text
    story = section(text, "story")
    assert re.search(r"corpus its report curate.* model pretrain.* exam evaluate.* rank rank", story)
    assert "From notes." in story
    assert "From corpus." in story
    data = section(text, "data")
    assert "1 file, 9 B" in data
    assert "length: too short 30" in data
    assert "model: too long 3" in data
    assert section(text, "learned").count("line of model") == 1
    exams = section(text, "exams")
    assert exams.count("improved") == 2
    assert "domain.bpb" in exams
    assert "reward of answers to held-out prompts" in exams
    assert "together" in section(text, "cost")
    assert "4e+09" in section(text, "cost")
    assert str(tmp_path / "notes") in section(text, "lineage")
    assert text.count("<svg ") == 3


def test_answers_and_rewards_of_exams_are_told(tmp_path):
    run = chapters.read(runs.small(tmp_path), "life")
    exam, rank, first = verdicts.verdicts(run.chapters)
    assert [(one["question"], one["before"], one["answer"]) for one in exam["answers"]] == [
        ("why?", "no idea", NASTY)
    ]
    assert [one["question"] for one in rank["answers"]] == [f"task {n}" for n in range(0, 12, 2)]
    assert rank["answers"][1] == {
        "question": "task 2", "answer": "said 2", "before": "", "right": "gold 2", "worth": "worth 0.5",
    }  # fmt: skip
    assert first["means"] == "Means over 24 answers to held-out prompts: rule 0.250."
    (run.chapters[3].path / "heldout.jsonl").write_text("{")
    assert "not valid JSON" in list(verdicts.verdicts(run.chapters))[1]["problem"]


def test_what_was_fetched_is_called_as_the_recipe_calls_it(tmp_path):
    workspace = runs.small(tmp_path)
    path = workspace.runs / "life" / "corpus-0123456789ab" / "artifact.json"
    record = json.loads(path.read_text())
    record["config"] = {"path": "wheel:some==1/texts#sha256=ab"}
    path.write_text(json.dumps(record))
    text = told(workspace)
    assert "From wheel:some==1/texts." in section(text, "story")
    assert "wheel:some==1/texts#sha256=ab corpus 1 file, 9 B" in section(text, "data")
    assert "wheel:some==1/texts#sha256=ab" in section(text, "lineage")


def test_inputs_of_one_place_are_named_once(tmp_path):
    story = section(told(runs.small(tmp_path)), "story")
    assert re.search(r"exam evaluate.* From model\. ", story)  # the exam of a model beside itself
    assert "From model, model." not in story


def test_texts_are_escaped_and_nothing_is_loaded(tmp_path):
    text = re.sub(r"<!--.*?-->", "", told(runs.small(tmp_path)), flags=re.DOTALL)  # pictures have comments
    assert NASTY not in text
    assert "<script" not in text
    assert "{{ 7 * 7 }}" in text
    assert "&lt;script&gt;" in text
    assert not re.search(r"\bsrc=|url\((?!#)|@import|<link", text)
    assert not re.findall(r'href="(?!#|[\w./%-]+report\.html")[^"]*"', text)


def test_links_lead_to_the_pages_of_the_stages_from_wherever_it_is(tmp_path):
    workspace = runs.small(tmp_path)
    for place in (None, tmp_path / "else where" / "page.html"):
        written = page.write(workspace, "life", place)
        links = re.findall(r'href="([^"#]+)"', written.read_text("utf-8"))
        assert links
        assert all((written.parent / link).is_file() for link in links)


def test_a_gate_that_did_not_pass_is_told_with_its_reasons(tmp_path):
    text = told(runs.small(tmp_path, passed=False))
    assert "A gate did not pass." in text
    assert "Finished." not in text
    assert "Not reached: export" in text
    assert text.count("the gate fails on &#39;not improved&#39;") == 2
    assert "regressed" in section(text, "exams")


def test_a_run_that_was_killed_tells_how_far_it_came(tmp_path):
    workspace = runs.small(tmp_path)
    run = workspace.runs / "life"
    runs.training(run, "second", finished=False, inputs={})
    stages = {
        "corpus": runs.entry(run / "corpus-0123456789ab", "reused"),
        "second": runs.entry(run / "second-0123456789ab", "running"),
        "exam": runs.entry(run / "exam-0123456789ab", "earlier run"),
    }
    runs.record(run, stages, "running", ["exam"])
    text = told(workspace)
    assert "Not finished." in text
    assert "Not reached: exam" in text
    assert "second" in section(text, "learned")
    assert text.count("<svg ") == 3
    assert 'id="exams"' not in text


def test_what_is_lost_or_broken_is_said_and_the_rest_told(tmp_path):
    workspace = runs.small(tmp_path)
    run = workspace.runs / "life"
    (run / "model-0123456789ab" / "artifact.json").unlink()
    (run / "exam-0123456789ab" / "results.json").write_text('{"metrics": [{}]}')
    (run / "corpus-0123456789ab" / "report.json").write_text("{")
    text = told(workspace)
    assert "is not an artifact" in section(text, "story")
    assert "another form than this version" in section(text, "exams")
    assert "is not valid JSON" in section(text, "data")


def test_old_records_do_not_say_how_a_run_stands(tmp_path):
    workspace = runs.small(tmp_path)
    path = workspace.runs / "life" / "run.json"
    path.write_text(path.read_text().replace('"state"', '"once"'))
    assert chapters.read(workspace, "life").state == "finished"
    path.write_text(path.read_text().replace('"made"}, "rank"', '"gate failed"}, "rank"'))
    assert chapters.read(workspace, "life").state == "finished"  # rounds may end so
    path.write_text(path.read_text().replace('"made"}}', '"failed"}}'))
    assert chapters.read(workspace, "life").state == "failed"


def test_it_is_written_again_only_when_something_changed(tmp_path):
    workspace = runs.small(tmp_path)
    place = page.refresh(workspace, "life")
    place.write_text(place.read_text() + "<!-- mine -->")
    path = workspace.runs / "life" / "run.json"
    path.write_text(path.read_text().replace('"made"', '"reused"'))
    assert "mine" in page.refresh(workspace, "life").read_text()
    path.write_text(path.read_text().replace('"finished"', '"failed"'))
    assert "mine" not in page.refresh(workspace, "life").read_text()


def test_unknown_runs_and_places_that_cannot_be_written_are_errors(tmp_path):
    workspace = runs.small(tmp_path)
    with pytest.raises(ModelNotFound, match="did you mean life"):
        page.write(workspace, "lif")
    with pytest.raises(ModelNotFound, match=r"'life/model' is one stage of a run.*`matura report life`"):
        page.write(workspace, "life/model")
    with pytest.raises(ModelNotFound, match="There is no run 'life/nothing'"):
        page.write(workspace, "life/nothing")
    with pytest.raises(ModelNotFound, match=r"has none yet.*--workspace"):
        page.write(Workspace(tmp_path / "elsewhere"), "life")
    (tmp_path / "file").touch()
    with pytest.raises(MaturaError, match="Choose another place with --to"):
        page.write(workspace, "life", tmp_path / "file" / "page.html")


def test_the_last_model_is_the_export_or_else_one_that_writes(tmp_path):
    workspace = runs.small(tmp_path)
    run = chapters.read(workspace, "life")
    assert run.last is not None
    assert run.last.path.name == "model-0123456789ab"


def test_parts_know_what_they_take(tmp_path):
    run = chapters.read(runs.small(tmp_path), "life")
    assert [one["name"] for one in learning.trainings(run.chapters)] == ["model"]
    assert [(one["name"], one["passed"]) for one in verdicts.verdicts(run.chapters)] == [
        ("exam", True),
        ("rank", True),
        ("first", None),
    ]
    assert intake.left_out(run.chapters)["rows"] == [["model: too long", "3"]]
    assert learning.picture([{"step": 1, "tokens": 5, "loss": 2.0}], "") == ""
    assert learning.picture([{"step": n, "tokens": n, "loss": float("nan")} for n in range(5)], "") == ""


def test_no_torch_is_loaded():
    code = "import sys, matura.evaluate.story.page; print('torch' in sys.modules)"
    assert process([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "False"
