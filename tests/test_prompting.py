"""Prompts in chat and generate, in Python and on the command line."""

import json
from pathlib import Path

import pytest

import matura
from matura.api import LanguageModel
from matura.commands import talking
from matura.core.errors import ConfigError, MaturaError, ModelNotFound
from matura.core.records import write_conversations
from matura.stages import prompt
from tests.tiny_models import CHATML, corpus, pulled, run, talk

ASKED = [{"role": "user", "content": "Hello"}]
SHORT = {"max_new_tokens": 8, "seed": 1}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("prompting")


@pytest.fixture(scope="module")
def model(place: Path) -> LanguageModel:
    return matura.load(pulled(place, **{"tokenizer.chat_template": CHATML}).path)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A prompt that a person wrote."""
    text = "system: Be brief.\ntemplate: 'Q: {{ input }}'\nexamples: {count: 1}\n"
    (tmp_path / "prompt.yaml").write_text(text)
    write_conversations(tmp_path / "examples.jsonl", [talk(1)])
    return tmp_path


WHOLE = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Q: say 1"},
    {"role": "assistant", "content": "hello hello 1"},
    {"role": "user", "content": "Q: Hello"},
]


def test_chat_with_a_prompt_is_chat_with_its_messages(model: LanguageModel, folder: Path) -> None:
    wanted = model.chat(WHOLE, **SHORT)
    assert wanted != model.chat(ASKED, **SHORT)
    for given in (folder, str(folder / "prompt.yaml"), matura.load_prompt(folder)):
        assert model.chat(ASKED, prompt=given, **SHORT) == wanted
        assert "".join(model.chat_stream(ASKED, prompt=given, **SHORT)) == wanted


def test_what_the_stage_made_is_a_prompt_too(model: LanguageModel, tmp_path: Path) -> None:
    made = run(prompt, tmp_path / "made", system="Be brief.")
    wanted = model.chat([{"role": "system", "content": "Be brief."}, *ASKED], **SHORT)
    assert model.chat(ASKED, prompt=made.path, **SHORT) == wanted
    assert matura.load_prompt(made.path / "prompt.yaml").settings == matura.load_prompt(made.path).settings


def test_references_that_are_no_prompt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MATURA_WORKSPACE", str(tmp_path / "workspace"))
    with pytest.raises(ConfigError, match="expected a prompt, but it is a corpus"):
        matura.load_prompt(corpus(tmp_path / "corpus").path)
    with pytest.raises(ModelNotFound):
        matura.load_prompt("run/missing")
    with pytest.raises(ConfigError, match="there is no such file"):
        matura.load_prompt(tmp_path / "prompt.yaml")


def test_the_commands_say_what_python_says(
    model: LanguageModel, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = str(model.artifact.path)
    lines = ["Hello"]
    monkeypatch.setattr("builtins.input", lambda _: lines.pop() if lines else _end())
    talking.chat(reference, None, dict(SHORT), str(folder))
    assert capsys.readouterr().out.strip() == model.chat(WHOLE, **SHORT).strip()
    talking.generate(reference, "Hello", dict(SHORT), str(folder))
    plain = "Be brief.\n\nQ: say 1 hello hello 1\n\nQ: Hello"
    assert capsys.readouterr().out.strip() == model.generate(plain, **SHORT).strip()
    with pytest.raises(MaturaError, match="has a system message already"):
        talking.chat(reference, "Mine.", {}, str(folder))


def _end() -> str:
    raise EOFError


DOCS = Path(__file__).parents[1] / "docs" / "stages" / "prompt.md"


def test_the_example_of_the_page_is_a_prompt(tmp_path: Path) -> None:
    """The two files that docs/stages/prompt.md shows do what it says."""
    text = DOCS.read_text("utf-8")
    blocks = [one.split("```")[0] for one in text.split("```yaml\n")[1:]]
    (tmp_path / "prompt.yaml").write_text(blocks[0])
    rows = text.split("```json\n")[1].split("```")[0]
    (tmp_path / "examples.jsonl").write_text(rows)
    assert [json.loads(line)["id"] for line in rows.splitlines()] == ["tea", "train", "kettle"]
    page = text.split("```text\n")[1].split("```")[0]
    found = matura.load_prompt(tmp_path).around(
        [{"role": "user", "content": "When does the last train leave?"}]
    )
    assert page == "".join(f"{one['role']}: {one['content']}\n" for one in found)
