"""The stage that makes prompts: what it chooses, what it leaves out, what it writes."""

import json
from pathlib import Path
from typing import Any

import pytest

from matura import cli
from matura.core import promptfile, resolve
from matura.core import recipe as recipes
from matura.core.artifact import Artifact
from matura.core.config import parse
from matura.core.errors import ConfigError, FormatError
from matura.core.raw import RawInput, raw_input
from matura.core.records import Conversation, read_conversations
from matura.core.workspace import Workspace
from matura.stages import prompt
from matura.tokenizer import prompt as prompts
from tests.tiny_models import conversations, run

TOPICS = ("tea leaves", "train rails", "apple tree")


@pytest.fixture
def file(tmp_path: Path) -> RawInput:
    """Thirty questions of three topics, in a file of a person's own."""
    path = tmp_path / "mine.jsonl"
    rows = [{"prompt": f"why {TOPICS[n % 3]} number{n}?", "completion": f"because {n}"} for n in range(30)]
    path.write_text("\n".join(map(json.dumps, rows)))
    return raw_input(path)


def shown(made: Artifact, question: str = "and you?") -> list[str]:
    return [one.messages[0]["content"] for one in prompts.read(made).examples_for(question)]


def test_it_writes_files_that_people_read(file: RawInput, tmp_path: Path) -> None:
    made = run(
        prompt, tmp_path / "made", examples=file, count=2, system="Be brief.\nBe right.", about="terse"
    )
    text = made.file("prompt.yaml").read_text()
    assert "system: |-\n  Be brief.\n  Be right.\n" in text
    assert 'examples: {"count": 2}' in text
    rows = list(read_conversations(made.file("examples.jsonl")))
    assert [row.id for row in rows] == ["mine.jsonl:1", "mine.jsonl:2"] == made.summary["examples"]
    assert rows[0].messages == (
        {"role": "user", "content": "why tea leaves number0?"},
        {"role": "assistant", "content": "because 0"},
    )
    assert prompts.read(made).id == made.id
    assert made.summary["line"] == "system text, 2 of 2 examples, fixed"


def test_the_same_settings_give_the_same_version(file: RawInput, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"examples": file, "choose": "random", "seed": 3}
    one, other = (run(prompt, tmp_path / name, **settings) for name in ("one", "other"))
    assert one.id == other.id != run(prompt, tmp_path / "third", **{**settings, "seed": 4}).id
    assert shown(one) == shown(other) != shown(run(prompt, tmp_path / "fourth", **{**settings, "seed": 5}))


def test_each_way_to_choose(file: RawInput, tmp_path: Path) -> None:
    made = {
        choose: run(prompt, tmp_path / choose, examples=file, choose=choose)
        for choose in ("fixed", "random", "similar", "diverse")
    }
    assert shown(made["fixed"]) == [f"why {TOPICS[n]} number{n}?" for n in range(3)]
    assert {one.split()[1] for one in shown(made["diverse"])} == {"tea", "train", "apple"}
    assert {one.split()[1] for one in shown(made["similar"], "when do rails end?")} == {"train"}
    assert made["similar"].summary["pool"] == 30
    assert made["random"].summary["pool"] == 3
    ids = ("mine.jsonl:9", "mine.jsonl:4")
    chosen = run(prompt, tmp_path / "ids", examples=file, ids=ids)
    assert chosen.summary["examples"] == list(ids)


def test_what_can_be_no_example_is_left_out_and_counted(tmp_path: Path) -> None:
    def talk(name: str, *turns: tuple[str, str], **more: Any) -> Conversation:
        return Conversation(name, tuple({"role": role, "content": text} for role, text in turns), **more)

    rows = [
        talk("a", ("system", "x"), ("user", "What is tea?"), ("assistant", "Leaves.")),
        talk("b", ("user", "what is TEA"), ("assistant", "Again.")),
        talk("c", ("user", "call"), ("assistant", "ok"), tools=({"name": "t"},)),
        talk("d", ("user", "and?")),
        Conversation("e", (), "plain text"),
        talk("f", ("user", "What is rain?"), ("assistant", "Water."), ("user", "Why?"), ("assistant", "So.")),
    ]
    source = conversations(tmp_path / "talks", rows, [talk("h", ("user", "held"), ("assistant", "out"))])
    made = run(prompt, tmp_path / "made", examples=source, count=2)
    assert made.summary["examples"] == ["a", "f"]
    assert sum(made.summary["left_out"].values()) == 4
    assert made.summary["left_out"]["asks what another one asks"] == 1
    assert "system" not in made.file("examples.jsonl").read_text()
    with pytest.raises(ConfigError, match="3 are to be shown, but there are 2"):
        run(prompt, tmp_path / "more", examples=source, count=3)
    with pytest.raises(ConfigError, match=r"data\.form is for files"):
        run(prompt, tmp_path / "form", examples=source, data={"form": "messages"})


def test_texts_come_from_files_too(tmp_path: Path) -> None:
    (tmp_path / "system.txt").write_text("Be brief.\n")
    (tmp_path / "template.txt").write_text("Q: {{ input }}\n\n")
    files = {name: raw_input(tmp_path / f"{name}.txt") for name in ("system", "template")}
    made = run(prompt, tmp_path / "made", system_file=files["system"], template_file=files["template"])
    settings = promptfile.read(made.path)
    assert (settings.system, settings.template) == ("Be brief.", "Q: {{ input }}\n")
    assert not (made.path / "examples.jsonl").exists()
    (tmp_path / "system.txt").write_bytes(b"\xff")
    with pytest.raises(FormatError, match=r"system\.txt: is not UTF-8"):
        run(prompt, tmp_path / "broken", system_file=raw_input(tmp_path / "system.txt"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"system": "a", "system_file": "b"}, "system or system_file"),
        ({"template": "a {{ input }}", "template_file": "b"}, "template or template_file"),
        ({"ids": ["a"], "choose": "random", "examples": "x"}, "ids are for choose=fixed"),
        ({"ids": ["a"]}, "ids would do nothing without examples: say where"),
        ({"count": 5}, "count would do nothing without examples"),
        ({"choose": "similar"}, "choose would do nothing without examples"),
        ({"seed": 1, "examples": "x"}, "seed is for choose=random, and this is choose=fixed"),
        ({"pool": 10, "choose": "random", "examples": "x"}, "pool is for choose=similar"),
        ({"ids": ["a"], "count": 2, "examples": "x"}, "give ids or count, not both"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(prompt.Config, settings, "test")


def test_a_template_must_show_what_is_asked(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="shows nothing of what is asked"):
        run(prompt, tmp_path / "made", template="Always the same.")


RECIPE = """
stages:
  shown: {stage: prompt, system: Be brief.}
  exam: {stage: evaluate, model: m, parent: m, prompt: $shown, parent_prompt: PLACE, corpus: c}
"""


def test_recipes_name_prompts_by_stage_and_by_file(tmp_path: Path) -> None:
    (tmp_path / "prompt.yaml").write_text("examples: {count: 1}\n")
    (tmp_path / "examples.jsonl").write_text("{}")
    path = tmp_path / "recipe.yaml"
    path.write_text(RECIPE.replace("PLACE", str(tmp_path / "prompt.yaml")))
    recipe = recipes.load(path, cli._Modules())
    assert recipe.steps[1].uses["prompt"] == "shown"
    found = resolve._found(recipe.steps[1], "parent_prompt", Workspace(tmp_path / "workspace"), True)
    assert isinstance(found, RawInput)
    assert set(found.files) == {"prompt.yaml", "examples.jsonl"}
    path.write_text(RECIPE.replace("prompt: $shown", "corpus: $shown").replace("PLACE, corpus: c", "x"))
    with pytest.raises(ConfigError, match="corpus"):
        recipes.load(path, cli._Modules())
