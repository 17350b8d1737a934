"""`matura inspect`: tables, files and messages, on a tiny model."""

import csv
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from matura import cli
from matura.inspect.attention import record
from matura.inspect.heads import between, without_sinks
from matura.inspect.reading import Inputs, inputs
from tests.tiny_models import chatml, network, pulled

TEXT = "hello 12 hello the end"
Run = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(pulled(tmp_path_factory.mktemp("models")).path)


@pytest.fixture
def inspect(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.setenv("MATURA_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.chdir(tmp_path)

    def run(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["matura", "inspect", *words])
        try:
            cli.main()
            code: Any = 0
        except SystemExit as left:
            code = left.code or 0
        printed = capsys.readouterr()
        return code, printed.out, printed.err

    return run


def given() -> Inputs:
    return inputs(network().config, chatml().tokenizer, TEXT)


def cells(out: str) -> list[list[str]]:
    """The rows of the tables that were printed."""
    return [[c.strip() for c in line.strip("│").split("│")] for line in out.splitlines() if line[:1] == "│"]


def test_the_last_layer_is_shown_as_numbers(inspect: Run, model: str) -> None:
    code, out, err = inspect("attention", model, "hello 12")
    assert (code, err) == (0, "")
    (found,) = record(network(), inputs(network().config, chatml().tokenizer, "hello 12"))
    expected = [[f"{w:.3f}" for w in row] for row in found.weights_LHTS[-1].mean(0).tolist()]
    assert [row[1:] for row in cells(out)] == expected
    assert "decoder attention, layer 1, mean of 4 heads" in out
    assert "Attention is not explanation" in out


def test_a_chosen_head_without_its_sink(inspect: Run, model: str) -> None:
    _, out, _ = inspect("attention", model, "hello 12", "--layer", "0", "--head", "2", "--no-sink")
    (found,) = record(network(), inputs(network().config, chatml().tokenizer, "hello 12"))
    left, removed = without_sinks(found.weights_LHTS, (0,))
    rows = zip(left[0, 2].tolist(), removed[0, 2].tolist(), strict=True)
    assert [row[1:] for row in cells(out)] == [[f"{w:.3f}" for w in [*row, gone]] for row, gone in rows]
    assert "layer 0, head 2" in out


def test_a_row_that_does_not_fit_is_listed(inspect: Run, model: str) -> None:
    _, out, _ = inspect("attention", model, TEXT * 3)
    assert len(cells(out)) == len(chatml().tokenizer.encode(TEXT * 3))
    assert all(len(row) == 3 for row in cells(out))
    assert cells(out)[0][2] == "hello 1.000"


def test_heads_are_found_by_two_tokens(inspect: Run, model: str) -> None:
    _, out, _ = inspect("attention", model, TEXT, "--from", "1", "--to", "#0", "--top", "3")
    (found,) = record(network(), given())
    best = between(found, 2, 0)[:3]
    assert [row[:3] for row in cells(out)] == [[str(b.layer), str(b.head), f"{b.weight:.3f}"] for b in best]
    assert "of 8 heads" in out


def test_one_token_says_where_it_looks(inspect: Run, model: str) -> None:
    _, out, _ = inspect("attention", model, TEXT, "--from", "1", "--layer", "1", "--head", "0", "--top", "9")
    (found,) = record(network(), given())
    row = found.weights_LHTS[1, 0, 2]
    order = row.argsort(descending=True).tolist()[:9]
    assert [(int(line[0]), line[2]) for line in cells(out)][:3] == [(k, f"{row[k]:.3f}") for k in order[:3]]


def test_another_end_changes_only_what_comes_after_it(inspect: Run, model: str) -> None:
    before, after = "hello 12 hello 34", "hello 12 hello 35"
    code, out, _ = inspect("attention", model, before, "--against", after, "--from", "2")
    assert code == 0
    assert "attention from '2' (3): identical in all 8 heads" in out
    before, after = "hello 12 hello 34", "hello 52 hello 34"
    _, out, _ = inspect("attention", model, before, "--against", after, "--from", "4", "--top", "2")
    assert len(cells(out)) == 2
    assert float(cells(out)[0][2]) >= float(cells(out)[1][2]) > 0.01


def test_patterns_are_listed(inspect: Run, model: str) -> None:
    _, out, _ = inspect("attention", model, "hello hello 12 hello", "--patterns", "--top", "2")
    assert [line.partition(":")[0] for line in out.splitlines() if "mean weight" in line] == [
        "previous",
        "first",
        "duplicate",
        "induction",
    ]
    assert len(cells(out)) == 8
    _, out, _ = inspect("attention", model, "he 1", "--patterns")
    assert "Not in this text: duplicate, induction" in out


def test_files_hold_every_weight(inspect: Run, model: str, tmp_path: Path) -> None:
    files = ("--json", "a.json", "--csv", "a.csv", "--html", "a.html")
    _, out, _ = inspect("attention", model, TEXT, *files)
    assert out.splitlines() == ["Written: a.html", "Written: a.json", "Written: a.csv"]
    (found,) = record(network(), given())
    data = json.loads((tmp_path / "a.json").read_text())
    torch.testing.assert_close(torch.tensor(data["parts"][0]["weights"]), found.weights_LHTS)
    assert data["parts"][0]["queries"] == list(found.queries.labels)
    rows = list(csv.DictReader(io.StringIO((tmp_path / "a.csv").read_text())))
    assert len(rows) == found.weights_LHTS.numel()
    weights = torch.tensor([float(row["weight"]) for row in rows])
    torch.testing.assert_close(weights, found.weights_LHTS.flatten(), rtol=1e-5, atol=1e-7)
    assert "<!doctype html>" in (tmp_path / "a.html").read_text()
    _, out, _ = inspect("attention", model, TEXT, "--layer", "1", "--json", "-")
    assert len(json.loads(out)["parts"][0]["weights"]) == 1


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "12"], "--to needs --from: the token that looks"),
        (["--against", "b"], "--against needs --from"),
        (["--from", "1", "--to", "#0", "--against", "b"], "--to and --against are different views"),
        (["--patterns", "--from", "1"], "leave --from out"),
        (["--from", "hello", "--to", "#0"], "'hello' is the token at several positions: 0, 4"),
        (["--layer", "2"], "the decoder has no layer 2: its layers are 0 to 1"),
        (["--part", "cross"], "no cross attention here; there is: decoder"),
        (["--target", "b"], "no encoder, so it reads one text only"),
        (["--json", "-", "--csv", "-"], "--json - and --csv -: only one of them can be stdout"),
        (["--html", "nowhere/a.html"], "there is no folder nowhere to write a.html into"),
    ],
)
def test_what_cannot_be_is_told(inspect: Run, model: str, words: list[str], message: str) -> None:
    code, out, err = inspect("attention", model, "hello 12hello", *words)
    assert (code, out) == (1, "")
    assert message in err
    assert "Traceback" not in err


def test_too_much_is_refused(inspect: Run, model: str) -> None:
    code, _, err = inspect("attention", model, "a" * 250, "--patterns", "--limit", "1")
    assert code == 1
    assert "these attention weights would take 2.0 MB, more than 1.0 MB" in err


def test_tokens_are_listed_and_summed(inspect: Run, model: str, tmp_path: Path) -> None:
    code, out, err = inspect("tokens", model, TEXT, "--top-k", "7", "--json", "t.json", "--html", "t.html")
    assert (code, err, out) == (0, "", "Written: t.html\nWritten: t.json\n")
    data = json.loads((tmp_path / "t.json").read_text())
    _, out, _ = inspect("tokens", model, TEXT, "--top-k", "7")
    assert out.splitlines()[0] == TEXT
    rows = cells(out)
    assert [row[1] for row in rows] == [one["text"].replace(" ", "·") for one in data["tokens"]]
    assert [row[2] for row in rows] == [f"{one['probability']:.4f}" for one in data["tokens"]]
    assert all(row[6] == "7" for row in rows)
    assert f"Perplexity {data['perplexity']:.2f}" in out
    assert (data["sampling"], data["given"], data["pseudo"]) == ({"top_k": 7}, ["<|endoftext|>"], False)


def test_two_models_side_by_side(inspect: Run, model: str, tmp_path: Path) -> None:
    other = str(pulled(tmp_path, model=network(seed=4), name="other").path)
    _, out, _ = inspect("tokens", model, TEXT, "--with", other)
    assert all(float(row[7]) > 0 for row in cells(out))
    assert "KL(first || second)" in out
    _, out, _ = inspect("tokens", model, TEXT, "--with", model)
    assert "KL(first || second) 0.0000" in out


def test_brackets_and_cursor_movements_in_a_text_stay_text(inspect: Run, model: str) -> None:
    _, out, _ = inspect("tokens", model, "[red]hello[/]\x1b[2J")
    assert out.splitlines()[0] == "[red]hello[/]\\x1b[2J"
    _, out, _ = inspect("attention", model, "[b]\x1b")
    assert "\x1b" not in out
    assert "\\x1b" in out
