"""`matura rank`: sources, the terminal, the page as a program, and that the stage's verb is still there."""

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from dataclasses import replace

import pytest

from matura import cli
from matura.align.ranking.journal import journal_of
from matura.commands import ranking, ranking_terminal, ranking_verb
from matura.core import artifact
from matura.core.preference_settings import PreferenceData
from matura.core.preferences import SAMPLES, Answer, read_rankings, write_rankings
from matura.core.workspace import Workspace
from matura.data.preferences import loading, pairs
from tests import tiny_models
from tests.align.ranking.made_rows import row, sitting


@pytest.fixture
def rank(monkeypatch, tmp_path, capsys):
    """Calls `matura rank` with keys on stdin; returns (exit code, what it said)."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MATURA_WORKSPACE", str(tmp_path / "workspace"))

    def call(*words: str, keys: str = "") -> tuple[int, str]:
        (tmp_path / "keys").write_text(keys)
        monkeypatch.setattr(sys, "argv", ["matura", "rank", *words])
        with open(tmp_path / "keys") as stdin:
            monkeypatch.setattr(sys, "stdin", stdin)
            try:
                cli.main()
                code = 0
            except SystemExit as left:
                code = int(left.code or 0)
        said = capsys.readouterr()
        return code, " ".join((said.out + said.err).split())

    return call


@pytest.fixture
def samples(tmp_path):
    path = tmp_path / "samples.jsonl"
    write_rankings(path, [row(n) for n in range(3)])
    return path


def kept(folder):
    return list(read_rankings(folder / "rankings.jsonl"))


def test_lines_of_keys_rank_and_the_next_call_goes_on(rank, samples, tmp_path):
    code, said = rank(str(samples), "--annotator", "ada", keys="2143\n\ns\nq\n")
    assert code == 0
    assert "ada ranks 3 prompts" in said
    assert "give a place" not in said
    assert "1 judged, 1 skipped, 1 left." in said
    code, said = rank(str(samples), "--annotator", "ada", keys="1t23\n")
    assert "2 are done" in said
    assert "2 judged, 1 skipped, 0 left." in said
    assert [one.id for one in kept(tmp_path)] == ["p0", "p2"]


@pytest.mark.parametrize(
    ("line", "why"),
    [("12", "C, D: give a place"), ("9999", "There are 4 places"), ("12m4", "'m' is no key here")],
)
def test_a_line_that_judges_nothing_stops_before_others_are_taken_for_it(rank, samples, tmp_path, line, why):
    code, said = rank(str(samples), keys=f"1234\n{line}\n4321\n1234\n")
    assert code == 1
    assert f"line 2 ('{line}'): {why}" in said
    assert "1 judged, 0 skipped, 2 left." in said
    assert [one.id for one in kept(tmp_path)] == ["p0"]
    code, said = rank(str(samples), keys="4321\n1234\n")
    assert (code, "3 judged" in said) == (0, True)


def test_four_ranks_are_six_pairs_for_whoever_reads_the_file(rank, samples, tmp_path):
    rank(str(samples), "--trl", "pairs.jsonl", keys="1234\n1123\nx124\n")
    loaded = loading.load_files(tmp_path / "rankings.jsonl", PreferenceData(heldout=0))
    assert [len(pairs.of(one)) for one in loaded.train] == [6, 5, 3]
    lines = (tmp_path / "pairs.jsonl").read_text().splitlines()
    assert len(lines) == 14
    assert re.match(r'\{"prompt": \[\{"role": "user", .*"chosen": \[\{"role": "assistant"', lines[0])


def test_a_second_annotator_goes_on_in_the_file_of_the_first(rank, samples, tmp_path):
    rank(str(samples), "--annotator", "ada", "--out", "one.jsonl", keys="1234\n1234\n1234\n")
    code, said = rank("one.jsonl", "--annotator", "eve", keys="4321\nq")
    assert (code, "eve ranks 3 prompts" in said) == (0, True)
    assert "2 annotators judged 1 prompts together" in said
    rows = list(read_rankings(tmp_path / "one.jsonl"))
    assert sorted((one.id, one.annotator) for one in rows) == [
        ("p0", "ada"),
        ("p0", "eve"),
        ("p1", "ada"),
        ("p2", "ada"),
    ]
    assert not (tmp_path / "rankings.jsonl").exists()


def test_what_others_thought_of_the_answers_is_not_taken_over(rank, samples, tmp_path):
    rank(str(samples), "--out", "first.jsonl", keys="1234\n")
    journal_of(tmp_path / "first.jsonl").unlink()
    rank("first.jsonl", "--annotator", "eve", keys="1xx1\n")
    (one,) = kept(tmp_path)
    assert sorted(answer.rank or 0 for answer in one.answers) == [0, 0, 1, 1]
    assert one.annotator == "eve"


def test_samples_of_the_workspace_both_sides(rank, tmp_path):
    draft = artifact.begin(
        Workspace().models / "asked", kind="samples", stage="sample", version=1, config={}, inputs={}
    )
    write_rankings(draft.path / SAMPLES, [row(0)])
    write_rankings(draft.path / "heldout.jsonl", [row(1)])
    draft.commit({})
    code, _ = rank("asked", keys="1234\n1234\n")
    assert (code, len(kept(tmp_path))) == (0, 2)


def test_a_model_answers_first_and_only_once(rank, tmp_path):
    Workspace().models.mkdir(parents=True)
    tiny_models.pulled(Workspace().models)
    (tmp_path / "asked.jsonl").write_text('{"prompt": "say 1"}\n{"prompt": "say 2"}\n{"prompt": "say 3"}\n')
    words = (
        "tiny",
        "--prompts",
        "asked.jsonl",
        "--answers",
        "3",
        "draw.max_new_tokens=6",
        "draw.temperature=1.0",
    )
    code, said = rank(*words, keys="123\n")
    assert code == 0, said
    assert "ranks 3 prompts" in said
    first = kept(tmp_path)[0]
    assert len(first.answers) == 3
    assert first.answers[0].source.startswith("model:")
    code, said = rank(*words, keys="123\n")
    assert "reused" in said
    assert len(kept(tmp_path)) == 2
    code, said = rank("samples=adhoc/sample", "ranks=rankings.jsonl")  # the stage takes what people saved
    assert code == 0, said
    assert "people ranked 2" in said
    code, said = rank(*words, "seed=5", keys="123\n")
    assert code == 1
    assert "other answers to the prompt" in said


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("samples.jsonl", "--prompts", "x"), "--prompts would do nothing"),
        (("samples.jsonl", "k=3"), "settings would do nothing"),
        (("samples.jsonl", "--port", "80"), "add --web"),
        (("samples.jsonl", "--annotator", " "), "--annotator"),
        (("samples.jsonl", "--plan"), "--plan is for the stage"),
        (("nowhere.jsonl",), "--prompts FILE"),
        (("empty.jsonl",), "has no answers to rank"),
        (("many.jsonl",), "--answers 9"),
        (("samples=x", "--web"), "say first what is to be ranked"),
        (("rewards.exact.weigth=1",), "did you mean 'weight'"),
        ((), "samples"),
        (("samples.jsonl", "--out", "samples.jsonl"), "Choose another --out"),
    ],
)
def test_what_cannot_be_is_said(rank, samples, tmp_path, words, message):
    write_rankings(tmp_path / "empty.jsonl", [])
    write_rankings(tmp_path / "many.jsonl", [row(0, *map(str, range(10)))])
    code, said = rank(*words)
    assert code == 1
    assert message in said
    assert not (tmp_path / "rankings.jsonl").exists() or not kept(tmp_path)


def test_one_id_with_different_answers_is_not_lost(rank, tmp_path):
    path = tmp_path / "joined.jsonl"
    other = replace(row(0), answers=(Answer("another"), Answer("model")))
    write_rankings(path, [row(0), other])
    code, said = rank(str(path))
    assert code == 1
    assert "two rows have the id 'p0', and not the same prompt and answers" in said
    assert not (tmp_path / "rankings.jsonl").exists()
    again = replace(row(0), annotator="eve", answers=row(0).answers[::-1])
    write_rankings(path, [row(0), again])
    code, said = rank(str(path), keys="q")
    assert (code, "ranks 1 prompts" in said) == (0, True)


@pytest.mark.parametrize(
    ("name", "said"),
    [("gone.jsonl", "there is no such file"), ("people.jsonl.gz", "a person ranks rows of messages")],
)
def test_a_file_of_rows_is_not_taken_for_a_model(rank, tmp_path, name, said):
    (tmp_path / "people.jsonl.gz").write_bytes(b"")
    code, told = rank(name, "--prompts", "people.jsonl.gz")
    assert code == 1
    assert said in told
    assert "is a model" not in told


def test_a_source_may_have_an_equals_sign(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ranking_verb.is_setting("samples=run/sample")
    assert ranking_verb.is_setting("rewards.exact.weight=1")
    assert not ranking_verb.is_setting("pypi:package==1.0")
    assert not ranking_verb.is_setting("./a=b.jsonl")
    (tmp_path / "a=b").touch()
    assert not ranking_verb.is_setting("a=b")


def test_the_help_tells_of_both_sides(rank):
    code, said = rank("--help")
    assert code == 0
    assert "--annotator" in said
    assert "rewards.exact.weight" in said


def test_single_keys_on_a_terminal_that_is_left_as_it_was(tmp_path, capsys, monkeypatch):
    import termios

    monkeypatch.setenv("COLUMNS", "100")
    evil = row(0, "\x1b[2Jred [bold]x[/bold]", "fine")
    one = sitting(tmp_path, [evil, row(1)])
    master, slave = pty.openpty()
    with os.fdopen(slave) as stdin:
        before = termios.tcgetattr(stdin)
        os.write(master, b"\x1b[A12")
        late = threading.Timer(0.3, os.write, (master, b"\r3u4123\rq"))
        late.start()
        ranking_terminal.ask(one, stdin)
        late.join()
        assert termios.tcgetattr(stdin) == before
    os.close(master)
    shown = capsys.readouterr().out
    assert "\x1b[2Jred" not in shown
    assert "<U+001B>[2Jred [bold]x[/bold]" in shown
    assert one.progress().judged == 2
    assert len(kept(tmp_path)) == 2


def test_the_page_as_a_program(samples, tmp_path):
    command = [sys.executable, "-m", "matura", "rank", str(samples), "--web", "--annotator", "ada"]
    environment = os.environ | {"PYTHONUNBUFFERED": "1", "PYTHONPATH": os.getcwd()}
    child = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    try:
        assert child.stdout is not None
        line = next(line for line in child.stdout if "http://" in line)
        url = re.search(r"http://127\.0\.0\.1:\d+/[\w-]{32}/", line)[0]
        origin = url[: url.index("/", 8)]
        with urllib.request.urlopen(url) as page:
            assert "Which answer is best?" in page.read().decode()
            assert "server" not in page.headers
        sent = urllib.request.Request(
            url + "press", b"turn=0&keys=1+2+3+4+enter", {"Origin": origin, "Sec-Fetch-Site": "same-origin"}
        )
        with urllib.request.urlopen(sent) as page:
            assert "1 judged" in page.read().decode()
        with pytest.raises(urllib.error.HTTPError, match="404"):
            urllib.request.urlopen(origin + "/")
    finally:
        child.send_signal(signal.SIGINT)
        rest, _ = child.communicate(timeout=20)
    assert child.returncode == 0, rest
    assert "1 judged, 0 skipped, 2 left." in rest
    assert "Traceback" not in rest
    assert len(kept(tmp_path)) == 1


def test_settings_of_the_stage_are_for_a_person():
    asked = ranking.Asked("m", ("seed=2",), prompts="nowhere", count=7, answers=3)
    assert ranking._sample_settings(asked) == [
        "model=m",
        "prompts=nowhere",
        "heldout=0",
        "count=7",
        "k=3",
        "seed=2",
    ]


def test_home_is_expanded_in_every_path(rank, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_rankings(tmp_path / "some.jsonl", [row(0)])
    code, _ = rank("some.jsonl", "--out=~/mine.jsonl", "--trl=~/pairs.jsonl", keys="1234\n")
    assert code == 0
    assert len(list(read_rankings(tmp_path / "mine.jsonl"))) == 1
    assert len((tmp_path / "pairs.jsonl").read_text().splitlines()) == 6
    (tmp_path / "made").mkdir()
    asked = ranking.Asked("m", prompts="~/made")
    assert "data.heldout=0" in ranking._sample_settings(asked)  # a folder of files
    (tmp_path / "made" / "artifact.json").touch()
    assert "data.heldout=0" not in ranking._sample_settings(asked)


def test_one_who_always_takes_the_first_is_told(rank, tmp_path):
    write_rankings(tmp_path / "many.jsonl", [row(n) for n in range(12)])
    _, said = rank("many.jsonl", keys="1234\n" * 9)
    assert "shown first" not in said
    _, said = rank("many.jsonl", keys="1234\n" * 3)
    assert "the one shown first was preferred in 100% of the pairs" in said
    assert "position seems to matter" in said
