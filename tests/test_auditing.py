"""`--audit` on the command line: readable in a pipe, for one stage or one of a recipe, and nothing is trained."""

import io
import json
import sys
from pathlib import Path

import pytest
from rich.console import Console

from matura import cli
from matura.commands import auditing
from matura.core.errors import ConfigError
from matura.train.audit import Piece, Shown
from tests.tiny_models import network, write_gguf_model

ROWS = [
    {
        "messages": [
            {"role": "user", "content": f"say {n}\t \n<|im_end|> \x1b[31m"},
            {"role": "assistant", "content": f"hello {n}", "weight": 1 + n % 2},
        ]
    }
    for n in range(12)
]
ROWS.append(
    {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a", "train": False}]}
)


class Shell:
    """`matura` in a folder with a model and a file."""

    def __init__(
        self, folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        self.folder, self.capsys, self.monkeypatch = folder, capsys, monkeypatch
        write_gguf_model(folder / "tiny.gguf", network())
        (folder / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def __call__(self, *words: str) -> str:
        self.monkeypatch.setattr(sys, "argv", ["matura", *words, "--workspace", str(self.folder / "ws")])
        cli.app(prog_name="matura", standalone_mode=False)
        return self.capsys.readouterr().out


@pytest.fixture
def matura(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Shell:
    monkeypatch.chdir(tmp_path)
    return Shell(tmp_path, capsys, monkeypatch)


EXPECTED = """\
<|im_start|>system↵
You help.<|im_end|>↵
<|im_start|>user↵
say 0⇥·↵
\\<|im_end|> \\x1b[31m<|im_end|>↵
<|im_start|>assistant↵
⟦hello 0<|im_end|>⟧
"""


def test_rows_and_counts_are_printed_and_nothing_is_made(matura: Shell) -> None:
    settings = ("model=./tiny.gguf", "conversations=mine.jsonl", "data.heldout=0")
    printed = matura("finetune", "--audit", "12", *settings)
    assert EXPECTED in printed
    assert "⟦×2 hello 1<|im_end|>⟧\n" in printed
    assert "\x1b" not in printed
    assert "13 rows to learn from\n  dropped, no trained answer: 1 (mine.jsonl:13)\n12 examples, " in printed
    assert "12 examples end in a trained stop token" in printed
    assert printed.count("\n── mine.jsonl:") == 12
    assert matura("finetune", "--audit", *settings).count("\n── ") == auditing.ROWS
    assert not list((matura.folder / "ws" / "runs").glob("*"))
    assert "--audit [ROWS]" in matura("finetune", "--help")


def test_a_stage_of_a_recipe(matura: Shell) -> None:
    recipe = matura.folder / "r.yaml"
    recipe.write_text(
        "stages:\n"
        "  first: {stage: finetune, model: ./tiny.gguf, conversations: mine.jsonl, tokens: 100, meter_every: 0}\n"
        "  joined: {stage: merge, model: $first}\n"
        "  second: {stage: finetune, model: $joined, conversations: mine.jsonl, sequence: 90}\n"
    )
    assert "── mine.jsonl:1" in matura("run", str(recipe), "--audit", "first", "1", "first.data.heldout=0")
    with pytest.raises(ConfigError, match="second needs what first makes"):
        matura("run", str(recipe), "--audit", "second")
    with pytest.raises(
        ConfigError, match="no stage 'joined' with something to audit; those that have: first, second"
    ):
        matura("run", str(recipe), "--audit", "joined")
    matura("run", str(recipe))
    assert "rows to learn from" in matura("run", str(recipe), "--audit", "second")
    with pytest.raises(ConfigError, match="second needs what first makes"):
        matura("run", str(recipe), "--audit", "second", "first.seed=5")


def test_trained_tokens_are_coloured_on_a_terminal() -> None:
    pieces = (
        Piece("read", 0),
        Piece("half", 0.5),
        Piece("<end>", 0.5, special=True),
        Piece("<x>", 0, special=True),
    )
    text = auditing.written(Shown("row", pieces, 4, 2, stops=False))
    assert text.plain == "read⟦×0.5 half<end>⟧<x>"
    styles = {text.plain[span.start : span.end]: span.style for span in text.spans}
    assert styles == {"half": auditing.TRAINED, "<end>": auditing.TRAINED, "<x>": auditing.SPECIAL}
    console = Console(force_terminal=True, color_system="standard", file=io.StringIO())
    console.print(text)
    assert "\x1b[30;42mhalf" in console.file.getvalue()  # type: ignore[attr-defined]


def test_what_cannot_be_seen_is_made_visible() -> None:
    assert auditing.visible("a \nb\t\n \n") == "a·↵\nb⇥↵\n·↵\n"
    assert auditing.visible("end ") == "end "
    assert auditing.visible("\x1b[0m\u200b\u202e\r\xa0") == "\\x1b[0m\\u200b\\u202e\\r\\xa0"
    assert auditing.visible("naïve 日本 😀") == "naïve 日本 😀"


def test_a_bare_number_says_how_many_rows() -> None:
    assert auditing.rows_in(["model=x", "20", "seed=3"]) == (["model=x", "seed=3"], 20)
    assert auditing.rows_in(["model=x"]) == (["model=x"], auditing.ROWS)
