"""Two prompts in one exam: the same model on both sides, the same items, the same gates."""

import json
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from matura.core import promptfile
from matura.core.artifact import Artifact
from matura.core.errors import ConfigError, FormatError, MaturaError
from matura.core.raw import RawInput, raw_input
from matura.evaluate import perturb
from matura.stages import evaluate, finetune, prompt
from matura.tokenizer import conversation
from tests.tiny_models import conversations, pulled, run, talk

COUNTRIES = 24
SPEC = """
name: capitals
kind: choices
data: [capitals.jsonl]
prompt: "The capital of {{ country }} is"
choices: cities
answer: capital
metrics: [acc, gold_bpb]
---
"""


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A tiny model, and a folder with a task of choices and one of writing."""
    place = tmp_path_factory.mktemp("world")
    folder = place / "tasks"
    folder.mkdir()
    rows = [
        {"country": f"Land{n}", "cities": [f"City{n}", f"Town{n}"], "capital": f"City{n}"}
        for n in range(COUNTRIES)
    ]
    (folder / "capitals.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (folder / "capitals.yaml").write_text(SPEC.partition("---")[0])
    (folder / "write.yaml").write_text(
        "name: write\nkind: writing\ndata: [capitals.jsonl]\nanswer: capital\nmax_tokens: 3\n"
        'prompt: "Name the capital of {{ country }}:"\nmetrics: [exact_match, gold_bpb]\n'
    )
    return {"model": pulled(place), "folder": raw_input(folder), "place": place}


def written(place: Path, text: str, rows: list[tuple[str, str]] | None = None) -> RawInput:
    """A prompt.yaml of a person's own."""
    place.mkdir()
    (place / "prompt.yaml").write_text(text)
    if rows:
        lines = [
            {"messages": [{"role": "user", "content": asked}, {"role": "assistant", "content": said}]}
            for asked, said in rows
        ]
        (place / "examples.jsonl").write_text("\n".join(map(json.dumps, lines)))
    return promptfile.raw_input(place)


def exam(world: dict[str, Any], place: Path, **settings: Any) -> dict[str, Any]:
    values = {
        "exams": None,
        "questions": ["What is tea?"],
        "answer_tokens": 3,
        "resamples": 1000,
        "tasks": [{"task": "capitals", "items": 0}, {"task": "write", "items": 12}],
        "window": 250,
    }
    made = run(evaluate, place, model=world["model"], folder=world["folder"], **{**values, **settings})
    found = json.loads(made.file("results.json").read_text())
    found["items"] = [json.loads(line) for line in made.file("items.jsonl").read_text().splitlines()]
    found["report"] = made.file("report.html").read_text()
    found["samples of capitals"] = made.path / "samples-capitals.jsonl"
    return found


def figures(found: dict[str, Any], who: str) -> list[tuple[str, str, float]]:
    return [(one["task"], one["metric"], one["value"]) for one in found["tasks"][who]]


def test_a_prompt_against_itself_differs_by_exactly_zero(world: dict[str, Any], tmp_path: Path) -> None:
    same = written(tmp_path / "same", "system: Be brief.\n")
    found = exam(world, tmp_path / "exam", parent=world["model"], prompt=same, parent_prompt=same)
    assert {one["difference"] for one in found["metrics"]} == {0.0}
    assert figures(found, "parent") == figures(found, "child")
    assert found["samples"][0]["parent"] == found["samples"][0]["child"]


def test_two_prompts_of_one_model_are_compared_item_by_item(world: dict[str, Any], tmp_path: Path) -> None:
    terse = run(prompt, tmp_path / "terse", system="Be brief.", template="{{ input }} (a city)")
    plain = written(tmp_path / "plain", "template: 'Tell me. {{ input }}'\n")
    found = exam(
        world,
        tmp_path / "exam",
        parent=world["model"],
        prompt=terse,
        parent_prompt=plain,
        gates=[{"metric": "capitals.gold_bpb", "fail_on": "not improved"}],
    )
    bits = next(one for one in found["metrics"] if one["name"] == "capitals.gold_bpb")
    assert bits["difference"] != 0
    assert bits["items"] == COUNTRIES
    assert found["prompts"]["child"]["id"] == terse.id
    assert found["prompts"]["parent"]["template"] == "Tell me. {{ input }}"
    assert any(terse.id[:12] in note and "Be brief." in note for note in found["notes"])
    assert terse.id[:12] in found["report"]
    assert plain.id[:12] in found["report"]
    alone = {
        who: exam(world, tmp_path / who, prompt=one) for who, one in (("child", terse), ("parent", plain))
    }
    for who, one in alone.items():
        assert figures(one, "child") == figures(found, who)
    turned = exam(world, tmp_path / "turned", parent=world["model"], prompt=plain, parent_prompt=terse)
    back = next(one for one in turned["metrics"] if one["name"] == "capitals.gold_bpb")
    assert back["difference"] == -bits["difference"]


def test_answers_that_were_taught_are_read_after_the_prompt(world: dict[str, Any], tmp_path: Path) -> None:
    talks = conversations(tmp_path / "talks", [], [talk(n) for n in range(12)])
    given = {"conversations": talks, "tasks": [], "parent": world["model"]}
    brief = written(tmp_path / "p", "system: Be brief.\n")
    found = exam(world, tmp_path / "exam", prompt=brief, **given)
    (one,) = found["metrics"]
    assert (one["name"], one["items"]) == ("answers.bpb", 12)
    assert one["difference"] != 0
    same = exam(world, tmp_path / "same", prompt=brief, parent_prompt=brief, **given)
    assert [one["difference"] for one in same["metrics"]] == [0.0]
    leak = written(tmp_path / "l", "system: When somebody says say 3 4 5 6, obey.\n")
    talks = conversations(tmp_path / "leak", [], [talk("3 4 5 6")])  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="holds 1 of the questions of answers"):
        exam(world, tmp_path / "leaked", prompt=leak, **given | {"conversations": talks})
    long = written(tmp_path / "long", f"system: {'no room ' * 80}\n")
    with pytest.raises(
        ConfigError, match=r"question c\d+ have .* tokens with the answer, more than window=250"
    ):
        exam(world, tmp_path / "crowded", prompt=long, **given)


def test_answers_that_the_window_ends_elsewhere_are_not_compared(
    world: dict[str, Any], tmp_path: Path
) -> None:
    """A prompt takes room from the answer after it: bits of a part of it are not those of a larger part."""
    short, long = [talk(n) for n in range(12)], [talk(n, "a long answer " * 40) for n in range(20, 23)]
    wordy = written(tmp_path / "p", "system: Be brief, be kind, and say what you mean.\n")
    given = {"tasks": [], "parent": world["model"], "prompt": wordy}
    mixed = conversations(tmp_path / "mixed", [], [*short, *long])
    found = exam(world, tmp_path / "exam", conversations=mixed, **given)
    assert [one["items"] for one in found["metrics"]] == [12]
    passed_over = [
        note for note in found["notes"] if note.startswith("3 held-out conversations were passed over")
    ]
    assert len(passed_over) == 1
    same = exam(world, tmp_path / "same", conversations=mixed, **given, parent_prompt=wordy)
    assert [one["items"] for one in same["metrics"]] == [15]
    assert not any("passed over" in note for note in same["notes"])
    with pytest.raises(MaturaError, match="of all 3 held-out rows the window ends their answers elsewhere"):
        exam(world, tmp_path / "none", conversations=conversations(tmp_path / "long", [], long), **given)


def test_right_answers_are_compared_over_the_same_bytes_whoever_is_asked_in_a_chat(
    world: dict[str, Any], tmp_path: Path
) -> None:
    brief = written(tmp_path / "p", "system: Be brief.\n")
    one, other = (
        exam(world, tmp_path / name, parent=world["model"], **{name: brief})
        for name in ("prompt", "parent_prompt")
    )
    for task in ("capitals", "write"):
        there, back = (
            next(row for row in found["metrics"] if row["name"] == f"{task}.gold_bpb")
            for found in (one, other)
        )
        assert (there["parent"], there["child"]) == (back["child"], back["parent"])
        assert there["difference"] == -back["difference"] != 0
        alone = {
            who: next(
                row["value"]
                for row in one["tasks"][who]
                if (row["task"], row["metric"]) == (task, "gold_bpb")
            )
            for who in ("parent", "child")
        }
        # The child is asked in a chat, without the space.
        assert there["child"] == pytest.approx(alone["child"], rel=1e-12)
        assert there["parent"] > 1.05 * alone["parent"]
    assert any("compared over the bytes without it" in note for note in one["notes"])
    assert not any("compared over" in note for note in exam(world, tmp_path / "alone", prompt=brief)["notes"])


def test_without_a_prompt_nothing_has_changed(world: dict[str, Any], tmp_path: Path) -> None:
    assert "prompts" not in exam(world, tmp_path / "plain")
    found = exam(
        world,
        tmp_path / "exam",
        parent=world["model"],
        prompt=written(tmp_path / "p", "system: Be brief.\n"),
    )
    assert figures(found, "parent") == figures(exam(world, tmp_path / "alone"), "child")
    assert figures(found, "parent") != figures(found, "child")
    assert "The parent was asked without a prompt." in found["notes"]


def test_what_is_asked_is_what_chat_sends(world: dict[str, Any], tmp_path: Path) -> None:
    from matura.tokenizer.prompt import read

    rows = [("The capital of Oz is", "Emerald"), ("The capital of Ur is", "Uruk")]
    given = written(tmp_path / "p", "examples: {count: 1, choose: similar}\nsystem: Brief.\n", rows)
    found = exam(world, tmp_path / "exam", prompt=given, samples="texts")
    first = json.loads(found["samples of capitals"].read_text().splitlines()[0])
    messages, continuation = first["arguments"][0]
    format = conversation.load(world["model"].path)
    asked = [{"role": "user", "content": "The capital of Land0 is"}]
    assert format.prompt(messages) == read(given).ids(format, asked)
    assert [one["content"] for one in messages] == ["Brief.", *rows[0], "The capital of Land0 is"]
    assert continuation == " City0"


def test_a_template_of_fields_stands_in_for_the_tasks_own(world: dict[str, Any], tmp_path: Path) -> None:
    given = written(tmp_path / "p", 'template: "{{ country }} has the capital"\n')
    own = exam(world, tmp_path / "exam", prompt=given, samples="texts")
    line = own["samples of capitals"].read_text().splitlines()[0]
    assert json.loads(line)["arguments"][0][0][-1]["content"] == "Land0 has the capital"
    with pytest.raises(ConfigError, match="a `prompt` of its own"):
        exam(world, tmp_path / "two", prompt=given, tasks=[{"task": "capitals", "prompt": "{{ country }}"}])
    wrong = written(tmp_path / "wrong", 'template: "{{ contry }}?"\n')
    with pytest.raises(FormatError, match="did you mean 'country'"):
        exam(world, tmp_path / "wrong-exam", prompt=wrong)


@pytest.mark.parametrize(
    ("text", "rows"),
    [
        ("examples: {count: 1}\n", [("The capital of Land7 is", "City7")]),
        ("examples: {count: 1}\n", [("Question: the capital of LAND7 is?", "City7")]),
        ("examples: {count: 1}\n", [("Who knows?", "The capital of Land7 is City7.")]),
        ("system: Remember, the capital of Land7 is City7.\n", None),
        ('template: "The capital of Land7 is City7. {{ input }}"\n', None),
    ],
)
def test_a_prompt_that_gives_an_answer_away_is_refused(
    text: str, rows: list[tuple[str, str]] | None, world: dict[str, Any], tmp_path: Path
) -> None:
    given = written(tmp_path / "p", text, rows)
    with pytest.raises(ConfigError, match=r"holds 1 of the questions of capitals \(capitals-7\)"):
        exam(world, tmp_path / "exam", prompt=given, tasks=[{"task": "capitals", "items": 0}])


def test_the_parents_prompt_is_looked_at_too(world: dict[str, Any], tmp_path: Path) -> None:
    given = written(tmp_path / "p", "system: Remember, the capital of Land7 is City7.\n")
    with pytest.raises(ConfigError, match="the prompt of the parent holds 1"):
        exam(world, tmp_path / "exam", parent=world["model"], parent_prompt=given)
    with pytest.raises(ConfigError, match="give the same model as parent"):
        exam(world, tmp_path / "exam", parent_prompt=given)


def test_similar_never_shows_the_question_itself(world: dict[str, Any], tmp_path: Path) -> None:
    """A pool that holds every question is no leak: each question is left out of its own examples."""
    rows = [(f"The capital of Land{n} is", f"City{n}") for n in range(COUNTRIES)]
    given = written(tmp_path / "p", "examples: {count: 1, choose: similar}\n", rows)
    found = exam(
        world, tmp_path / "exam", prompt=given, samples="texts", tasks=[{"task": "capitals", "items": 0}]
    )
    for line in found["samples of capitals"].read_text().splitlines():
        messages = json.loads(line)["arguments"][0][0]
        assert len(messages) == 3
        assert messages[0]["content"] != messages[2]["content"]


def test_a_changed_question_is_still_known_for_what_it_was(
    world: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Words turned round are no other question: neither may its answer stand in front of it."""

    def turned(question: perturb.Question, chance: random.Random) -> perturb.Question:
        return replace(question, prompts=tuple(" ".join(one.split()[::-1]) for one in question.prompts))

    monkeypatch.setitem(perturb.PERTURBATIONS, "turned", perturb.Perturbation("turned", "", turned))
    rows = [(f"The capital of Land{n} is", f"City{n}") for n in range(COUNTRIES)]
    task = {"task": "capitals", "items": 0, "perturbation": "turned", "name": "capitals"}
    similar = written(tmp_path / "similar", "examples: {count: 1, choose: similar}\n", rows)
    found = exam(world, tmp_path / "exam", prompt=similar, samples="texts", tasks=[task])
    for number, line in enumerate(found["samples of capitals"].read_text().splitlines()):
        example, _, question = json.loads(line)["arguments"][0][0]
        assert question["content"] == f"is Land{number} of capital The"
        assert example["content"] != rows[number][0]
    fixed = written(tmp_path / "fixed", "examples: {count: 1}\n", rows[:1])
    with pytest.raises(ConfigError, match="holds 1 of the questions"):
        exam(world, tmp_path / "refused", prompt=fixed, tasks=[task])


def test_a_prompt_that_leaves_no_room_is_refused(world: dict[str, Any], tmp_path: Path) -> None:
    given = written(tmp_path / "p", f"system: {'word ' * 300}\n")
    with pytest.raises(ConfigError, match="more than window=250"):
        exam(world, tmp_path / "exam", prompt=given)


def test_fine_tuning_renders_what_the_exam_asks(world: dict[str, Any], tmp_path: Path) -> None:
    from matura.core.config import parse

    rows = [{"prompt": f"say {n}", "completion": f"said {n}"} for n in range(6)]
    (tmp_path / "mine.jsonl").write_text("\n".join(map(json.dumps, rows)))
    given = written(
        tmp_path / "p", "system: Brief.\ntemplate: 'Q: {{ input }}'\nexamples: {count: 1}\n", [("x", "y")]
    )
    inputs: dict[str, Artifact | RawInput] = {
        "model": world["model"],
        "conversations": raw_input(tmp_path / "mine.jsonl"),
        "prompt": given,
    }
    values = {name: str(one.path) for name, one in inputs.items()}
    quick: dict[str, Any] = {"tokens": 200, "tokens_per_step": 64, "sequence": 64, "meter_every": 0}
    found = {}
    for shown in (False, True):
        config = parse(finetune.Config, {**values, **quick, "prompt_examples": shown}, "test")
        found[shown] = finetune._material(config, inputs)["conversations"].train[0].messages
    assert [one["content"] for one in found[False]] == ["Brief.", "Q: say 0", "said 0"]
    assert [one["content"] for one in found[True]] == ["Brief.", "Q: x", "y", "Q: say 0", "said 0"]
    assert found[True][2]["weight"] == 0
    made = run(finetune, tmp_path / "tuned", **inputs, **quick)
    assert made.record["inputs"]["prompt"]["id"] == given.id
    with pytest.raises(ConfigError, match="prompt is for conversations"):
        parse(finetune.Config, {"model": "m", "corpus": "c", "prompt": "p"}, "test")
