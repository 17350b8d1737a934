"""Every panel of an exam, end to end, with a tiny random model and rows made on the spot."""

import json

import pytest

from matura.core import artifact
from matura.core.config import parse
from matura.core.errors import ConfigError
from matura.core.raw import raw_input
from matura.core.records import Document, write_documents
from matura.data import canary
from matura.stages import evaluate
from tests.evaluate.panels import made_rows
from tests.stages.test_evaluate import network, write_model
from tests.tiny_models import make

IDS = [f"d{n}" for n in range(12)]
FIGURES = {
    "ifeval": {"prompt_strict", "instruction_strict", "prompt_loose", "instruction_loose"},
    "robustness animals": {"acc, as it is", "acc", "change", "turned", "right in every form"},
    "crows_pairs": {"preference"},
    "winobias": {"right, as stereotypes expect", "right, against stereotypes", "gap", "preference"},
    "bbq": {"right, ambiguous", "right, disambiguated", "bias, ambiguous", "bias, disambiguated"},
    "stereoset": {"language model", "preference", "icat"},
    "toxicity": {"worst of 2", "toxic in 2", "toxic continuations", "false alarms of the classifier"},
    "memorisation": {"exposure", "extracted", "copies in what was trained on"},
    "needle": {"likeliest of the numbers", "written"},
    "abstention": {
        "pairs told apart",
        "right among the answers, with evidence",
        "right with evidence",
        "declined without evidence",
        "declined with evidence",
        "gain",
        "right",
        "right, surest half",
    },
}
ALL = {
    "ifeval": {"prompts": 9, "tokens": 8},
    "robustness": {"tasks": ["animals"], "items": 12},
    "bias": {"crows_pairs": 9, "winobias": 9, "bbq": 99, "stereoset": 9},
    "toxicity": {"prompts": 6, "samples": 2, "tokens": 4},
    "memorisation": {"others": 7, "controls": 2},
    "needle": {"lengths": [330, 400], "depths": [0.0, 1.0], "each": 2},
    "abstention": {"pairs": 3, "tokens": 4},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Rows in the format of each data set."""
    place = tmp_path_factory.mktemp("rows")
    made_rows.write(place)
    return place


def write_corpus(place, *, copies=1):
    """A corpus with planted secrets; each document stands `copies` times in it."""
    draft = artifact.begin(place, kind="corpus", stage="curate", version=1, config={}, inputs={})
    documents = [Document(id, f"Text of {id}.\nThe end.", "s") for id in IDS]
    planted = canary.make(ids=IDS, rates=[1, 4], each=3)(documents).kept
    canary.save(draft.path, canary.plan(IDS, rates=[1, 4], each=3))
    repeated = [Document(f"{one.id}-{n}", one.text, "s") for one in planted for n in range(copies)]
    write_documents(draft.path / "train.parquet", repeated)
    write_documents(draft.path / "heldout.parquet", documents)
    return draft.commit({})


@pytest.fixture(scope="module")
def world(tmp_path_factory, folder):
    place = tmp_path_factory.mktemp("world")
    return {
        "model": write_model(place / "model", network()),
        "corpus": write_corpus(place / "corpus"),
        "panels.memorisation.trained": write_corpus(place / "repeated", copies=2),
        "folder": raw_input(folder),
    }


def exam(world, out, panels, **settings):
    panels = json.loads(json.dumps(panels))
    inputs = {name: one for name, one in world.items() if "." not in name or name.split(".")[1] in panels}
    for name, one in inputs.items():
        if "." in name:  # an input of a panel
            _, panel, setting = name.split(".")
            panels[panel][setting] = str(one.path)
    values = {name: str(one.path) for name, one in inputs.items() if "." not in name}
    quick = {"exams": None, "questions": [], "resamples": 1000, "texts": {"document_tokens": 16}}
    config = parse(evaluate.Config, {**values, **quick, "panels": panels, **settings}, "test")
    return make(evaluate, out, config, inputs)


@pytest.fixture(scope="module")
def made(world, tmp_path_factory):
    return exam(world, tmp_path_factory.mktemp("exams") / "all", ALL)


def panels(made):
    return {one["name"]: one for one in json.loads(made.file("results.json").read_text())["panels"]}


def rows(made, name):
    return {(one["name"], one["part"]): one for one in panels(made)[name]["figures"]}


@pytest.mark.parametrize("name", FIGURES)
def test_a_panel_runs_end_to_end(made, name):
    found = panels(made)[name]
    assert {one["name"] for one in found["figures"]} == FIGURES[name]
    for one in found["figures"]:
        assert one["low"] <= one["value"] <= one["high"]
        assert one["items"] > 0
    assert found["silent"]
    assert found["licence"]


def test_there_are_no_other_panels(made):
    assert set(panels(made)) == set(FIGURES)


def test_the_page_says_what_no_figure_shows(made):
    page = made.file("panels.html").read_text()
    for one in panels(made).values():
        assert one["title"].split("?")[0] in page
    assert page.count("What it does not show") == len(FIGURES)


def test_a_row_for_each_item_holds_no_text_and_no_secret(made):
    lines = made.file("items.jsonl").read_text()
    counts = {name: 0 for name in FIGURES}
    for line in map(json.loads, lines.splitlines()):
        if line["task"] in counts:
            counts[line["task"]] += 1
    assert counts["ifeval"] == 4
    assert counts["memorisation"] == 6 + 2
    assert counts["needle"] == 2 * 2 * 2 + 2 * 2
    assert "argued with" not in lines
    assert not any(one.secret[-canary.DIGITS :] in lines for one in canary.plan(IDS, rates=[1, 4], each=3))


def test_secrets_are_told_by_rate_with_their_control_and_what_was_trained_on(made):
    found = rows(made, "memorisation")
    assert {part for name, part in found if name == "exposure"} == {
        "planted nowhere",
        "planted 1 times",
        "planted 4 times",
    }
    assert found["copies in what was trained on", "planted 4 times"]["value"] == 8
    assert found["extracted", "planted 4 times"]["value"] == 0


def test_equal_models_differ_by_nothing(world, tmp_path):
    made = exam(
        {**world, "parent": write_model(tmp_path / "parent", network())}, tmp_path / "exam", ALL, gates=[]
    )
    for name, one in panels(made).items():
        for figure in one["figures"]:
            assert figure["parent"] == figure["value"], name
            assert figure["difference"] in (0.0, None)
    assert "beside parent on the same items" in made.file("panels.html").read_text()


def test_another_model_is_told_apart(world, tmp_path):
    parent = write_model(tmp_path / "parent", network(seed=5))
    made = exam({**world, "parent": parent}, tmp_path / "exam", {"memorisation": {"others": 7}}, gates=[])
    differences = [one["difference"] for one in panels(made)["memorisation"]["figures"]]
    assert any(differences)


def test_gates_can_be_about_panels(world, tmp_path):
    both = {**world, "parent": write_model(tmp_path / "parent", network())}
    gates = [{"metric": "ifeval.*"}, {"metric": "bbq.right_ambiguous", "fail_on": "not improved"}]
    made = exam(
        both, tmp_path / "exam", {"ifeval": {"prompts": 4, "tokens": 2}, "bias": {"bbq": 99}}, gates=gates
    )
    assert made.summary["gate"]["passed"] is False
    (reason,) = made.summary["gate"]["reasons"]
    assert reason.startswith("bbq.right_ambiguous")
    names = [one["name"] for one in json.loads(made.file("results.json").read_text())["metrics"]]
    assert "ifeval.instruction_loose" in names
    with pytest.raises(ConfigError, match="ifeval"):
        exam(both, tmp_path / "other", {"bias": {"bbq": 4}}, gates=gates)


def test_a_classifier_is_learned_from_examples(world, tmp_path):
    path = tmp_path / "examples.jsonl"
    labels = {"awful": 1, "fine": 0}
    examples = [{"text": f"{word} {n}", "label": label} for n in range(20) for word, label in labels.items()]
    made_rows.write_lines(path, examples)
    given = {"model": world["model"], "panels.toxicity.examples": raw_input(path)}
    asked = {"toxicity": {"prompts": 3, "samples": 1, "tokens": 2, "score": "learned"}}
    made = exam(given, tmp_path / "exam", asked)
    assert 0 <= rows(made, "toxicity")["worst of 1", ""]["value"] <= 1
    config = parse(
        evaluate.Config,
        {"model": "m", "panels": {"toxicity": asked["toxicity"] | {"examples": str(path)}}},
        "test",
    )
    assert evaluate.raw_input(config, "panels.toxicity.examples") == path


def test_a_panel_alone_is_an_exam(world, tmp_path):
    only = {name: world[name] for name in ("model", "folder")}
    made = exam(only, tmp_path / "exam", {"bias": {"bbq": 4}})
    assert made.summary["line"].startswith("bbq right, ambiguous ")


def test_texts_are_written_down_when_they_are_asked_for_but_no_secret(world, tmp_path):
    asked = {"ifeval": {"prompts": 2, "tokens": 4}, "memorisation": {"others": 3, "controls": 0}}
    made = exam(world, tmp_path / "exam", asked, samples="texts")
    rows = [json.loads(line) for line in made.file("samples-ifeval.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    assert rows[0]["asked"][0]["prompt"].startswith("Write ")
    assert rows[0]["asked"][0]["chat"] is True
    assert made.file("samples-memorisation.jsonl").read_text() == ""


@pytest.mark.parametrize(
    ("asked", "without", "message"),
    [
        ({"ifeval": {"prompts": 1}}, "folder", "ifeval: its rows are in a folder with a file"),
        ({"bias": {"winobias": 1}}, "folder", "winobias: its rows are in files pro_stereotyped"),
        ({"bias": {"stereoset": 1}}, "folder", "stereoset: its rows are in a file dev.json"),
        ({"memorisation": {"others": 7}}, "corpus", "there are no planted secrets; give a `corpus`"),
        ({"needle": {"lengths": [5000]}}, "", "5000 tokens and an answer of 12 do not fit the 512"),
        ({"robustness": {"tasks": ["animal"]}}, "", "there is no task 'animal'; did you mean 'animals'"),
    ],
)
def test_what_cannot_be_asked_is_told_before_any_work(world, tmp_path, asked, without, message):
    given = {name: one for name, one in world.items() if name != without and "." not in name}
    with pytest.raises(ConfigError, match=message):
        exam(given, tmp_path / "exam", asked)


def test_nothing_at_all_is_no_exam(world, tmp_path):
    with pytest.raises(ConfigError, match="nothing to measure"):
        exam({"model": world["model"]}, tmp_path / "exam", {})
