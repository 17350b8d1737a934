"""The command line: verbs, messages, exit codes; stages and models are small stand-ins."""

import builtins
import io
import json
import os
import signal
import subprocess
import sys
import time
import warnings
from types import ModuleType, SimpleNamespace

import pytest
import torch

import matura
from matura import cli
from matura.commands import options
from matura.core.settings import Sampling
from matura.core.workspace import Workspace
from matura.evaluate.likelihood import Likelihood
from tests import tiny_hf
from tests.core.fake_stages import make_model, make_stages

RECIPE = """\
stages:
  documents: {stage: curate, path: DOCS}
  tuned: {stage: finetune, model: base, corpus: $documents}
  exam: {stage: evaluate, model: $tuned, parent: base}
"""


class Shell:
    """Calls `matura` in this process and keeps what it printed."""

    def __init__(self, capsys, monkeypatch):
        self.capsys, self.monkeypatch = capsys, monkeypatch

    def __call__(self, *words: str) -> tuple[int, str, str]:
        self.monkeypatch.setattr(sys, "argv", ["matura", *words])
        try:
            cli.main()
            code = 0
        except SystemExit as left:
            code = left.code or 0
        printed = self.capsys.readouterr()
        return code, printed.out, printed.err


@pytest.fixture
def stages(monkeypatch):
    made = make_stages()
    for kind, module in made.items():
        monkeypatch.setitem(sys.modules, f"fake_{kind}", module)
    monkeypatch.setattr(cli, "STAGES", {kind: f"fake_{kind}" for kind in made})
    return made


@pytest.fixture
def matura_(capsys, monkeypatch, tmp_path, stages):
    monkeypatch.setenv("MATURA_WORKSPACE", str(tmp_path / "workspace"))
    monkeypatch.delenv("MATURA_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("first")
    (tmp_path / "adapt.yaml").write_text(RECIPE.replace("DOCS", str(tmp_path / "docs")))
    make_model(Workspace(), "base")
    return Shell(capsys, monkeypatch)


def test_version_and_help(matura_):
    assert matura_("--version") == (0, f"matura {matura.__version__}\n", "")
    code, out, _ = matura_("--help")
    assert code == 0
    for verb in ("run", "curate", "finetune", "schema", "show", "lineage", "gc", "pull", "generate", "chat"):
        assert f"  {verb} " in out


def test_an_unknown_verb(matura_):
    code, _, err = matura_("finetun", "steps=3")
    assert code == 2
    assert "Did you mean 'finetune'?" in err


def test_run_then_run_again(matura_):
    code, out, _ = matura_("run", "adapt.yaml")
    assert code == 0
    lines = out.splitlines()
    assert lines[0].split() == ["documents", "running", "never", "run"]
    assert lines[1].split()[:2] == ["documents", "made"]
    assert lines[-2] == f"Report: {os.path.relpath(Workspace().find('adapt/exam').path)}/report.html"
    assert lines[-1] == "Talk to it: matura chat adapt/tuned"
    code, out, _ = matura_("run", "adapt.yaml")
    lines = out.splitlines()
    assert [line.split()[1] for line in lines[:3]] == ["reused"] * 3
    assert lines[4].startswith("Nothing had changed: all 3 stages were reused")
    assert lines[-1] == "Talk to it: matura chat adapt/tuned"


def test_plan_changes_nothing(matura_, stages):
    code, out, _ = matura_("run", "adapt.yaml", "tuned.steps=9", "--plan")
    assert code == 0
    assert "never run" in out
    assert "3 of 3" in out
    assert not Workspace().runs.exists()
    assert stages["curate"].calls == []


def test_a_wrong_recipe_is_one_message(matura_, monkeypatch):
    code, out, err = matura_("run", "adapt.yaml", "tuned.stepps=9", "exm.x=1")
    assert (code, out) == (1, "")
    assert err.startswith("matura: adapt.yaml: 2 problems\n")
    assert "did you mean 'steps'?" in err
    assert "Traceback" not in err
    monkeypatch.setenv("MATURA_DEBUG", "1")
    with pytest.raises(matura.core.errors.ConfigError):
        matura_("run", "adapt.yaml", "tuned.stepps=9")


def test_a_missing_recipe(matura_):
    assert matura_("run", "nowhere.yaml") == (1, "", "matura: nowhere.yaml: there is no such file\n")


def test_a_gate_stops_with_its_reason(matura_, stages):
    code, out, err = matura_("run", "adapt.yaml", "exam.passes=false")
    assert code == 1
    assert "exam       gate failed" in out
    assert "accuracy regressed: -9.0 points" in err
    assert "report.html" in err


def test_ctrl_c_says_how_to_go_on(matura_, stages):
    stages["finetune"].kill_at = 3
    code, _, err = matura_("run", "adapt.yaml", "tuned.steps=5", "--name", "mine")
    assert code == 130
    assert err.strip().endswith("to go on: matura run adapt.yaml tuned.steps=5 --name mine")
    stages["finetune"].kill_at = 0
    code, out, _ = matura_("run", "adapt.yaml", "tuned.steps=5", "--name", "mine")
    assert code == 0
    assert "tuned      resuming  interrupted at step 2" in out
    assert stages["finetune"].worked == [1, 2, 3, 4, 5]


def test_one_stage_by_itself(matura_, stages):
    assert matura_("curate", "path=docs")[0] == 0
    assert matura_("finetune", "model=base", "corpus=adhoc/curate", "--plan")[0] == 0
    code, out, _ = matura_("finetune", "model=base", "corpus=adhoc/curate")
    assert code == 0
    assert out.splitlines()[-1] == "Talk to it: matura chat adhoc/finetune"
    assert Workspace().find("adhoc/curate").kind == "corpus"  # still known after the second verb
    code, out, _ = matura_("curate", "path=docs")
    assert "the stage was reused" in out


def test_one_stage_with_wrong_settings(matura_):
    code, _, err = matura_("finetune", "model=base", "corpus=x", "step=3", "method=lorra")
    assert code == 1
    assert "finetune.step: unknown setting; did you mean 'steps'?" in err
    assert "did you mean 'lora'?" in err


def test_help_of_a_stage_lists_its_settings(matura_):
    code, out, _ = matura_("finetune", "--help")
    assert code == 0
    assert out.startswith("Usage: matura finetune [KEY=VALUE]...")
    assert "  optim.lr  (number; default 0.001)\n      Peak learning rate." in out
    assert "  corpus  (corpus or conversations; required)" in out


def test_schema_is_json(matura_):
    code, out, _ = matura_("schema")
    assert code == 0
    kinds = json.loads(out)["properties"]["stages"]["additionalProperties"]["oneOf"]
    assert len(kinds) == 5 + 1  # the stages of this file, and rounds of them


def test_show_and_lineage(matura_):
    matura_("run", "adapt.yaml")
    assert "a tuned model" in matura_("show", "adapt/tuned")[1]
    assert json.loads(matura_("show", "adapt/tuned", "--json")[1])["stage"] == "finetune"
    drawn = matura_("lineage", "adapt/exam")[1]
    assert str(Workspace().find("adapt/documents").inputs["path"]["path"]) in drawn
    code, _, err = matura_("show", "adapt/tund")
    assert code == 1
    assert "did you mean adapt/tuned?" in err


def test_gc_lists_and_removes_only_what_no_run_needs(matura_):
    matura_("run", "adapt.yaml")
    old = Workspace().find("adapt/tuned").path
    matura_("run", "adapt.yaml", "tuned.steps=9")
    code, out, _ = matura_("gc")
    assert code == 0
    assert old.name in out
    assert old.exists()
    assert "Freed" in matura_("gc", "--remove")[1]
    assert not old.exists()
    assert matura_("gc")[1] == "Nothing can go: the latest runs need it all.\n"
    assert "all 3 stages were reused" in matura_("run", "adapt.yaml", "tuned.steps=9")[1]


def test_a_run_ends_in_a_page_about_it_also_at_a_gate(matura_):
    place = Workspace().runs / "adapt" / "report.html"
    assert "The whole story: " in matura_("run", "adapt.yaml")[1]
    assert "Finished." in place.read_text()
    code, out, err = matura_("run", "adapt.yaml", "exam.passes=false")
    assert code == 1
    assert "The whole story: " in out
    assert "the gate did not pass" in err
    assert "accuracy regressed: -9.0 points" in place.read_text()
    assert "report.html" in matura_("report", "adapt")[1]
    assert "no run 'adap'; did you mean adapt?" in matura_("report", "adap")[2]


def test_another_workspace(matura_, tmp_path):
    other = tmp_path / "other place"
    make_model(Workspace(other), "base")
    code, out, _ = matura_("run", "adapt.yaml", "--workspace", str(other))
    assert code == 0
    assert (other / "runs" / "adapt" / "run.json").exists()
    assert out.splitlines()[-1] == f"Talk to it: matura chat adapt/tuned --workspace '{other}'"


def test_a_busy_workspace_is_named(matura_):
    with Workspace().lock():
        code, _, err = matura_("run", "adapt.yaml")
    assert code == 1
    assert "in use" in err


@pytest.fixture
def model(monkeypatch):
    """A stand-in for `matura.api` whose model repeats what it is asked, and records how."""
    asked = []

    class Echo:
        format = SimpleNamespace(template="a template")
        model = SimpleNamespace(config=SimpleNamespace(head=SimpleNamespace(kind="language")))

        def searches(self, settings):
            return "beams" in settings

        def generate(self, prompt, **settings):
            asked.append((prompt, settings))
            return "the best"

        def stream(self, prompt, **sampling):
            asked.append((prompt, sampling))
            yield "go"
            if prompt == "interrupt":
                raise KeyboardInterrupt
            yield "es on"

        def embed(self, texts, **settings):
            asked.append((texts, settings))
            if settings["max_tokens"]:
                warnings.warn("cut", stacklevel=1)
            return torch.tensor([[3.0, 4.0], [4.0, 3.0]])[: len(texts)]

        def classify(self, texts, **settings):
            asked.append((texts, settings))
            return [[("good", 0.75), ("bad", 0.25)] for _ in texts]

        def score(self, text, continuation):
            asked.append((text, continuation))
            return Likelihood(-6.0, 3, 12)

        def chat_stream(self, messages, **sampling):
            asked.append(([dict(message) for message in messages], sampling))
            for word in ("you said ", messages[-1]["content"]):
                if word == "interrupt":
                    raise KeyboardInterrupt
                yield word

    api = ModuleType("matura.api")
    api.load = lambda reference: Echo()
    api.pull = lambda reference, workspace: make_model(workspace, reference)
    monkeypatch.setitem(sys.modules, "matura.api", api)
    monkeypatch.setattr(matura, "api", api, raising=False)
    return asked


def test_generate_passes_only_what_was_given(matura_, model):
    code, out, _ = matura_("generate", "base", "It", "--temperature", "0.5", "--stop", "a", "--stop", "b")
    assert (code, out) == (0, "goes on\n")
    assert model == [("It", {"temperature": 0.5, "stop": ["a", "b"]})]
    assert matura_("generate", "base", "It", "--top-p", "3")[0] == 2


def test_generate_knows_every_sampling_option(matura_, model):
    words = "--max-new-tokens 5 --top-k 3 --top-p 0.9 --min-p 0.1 --typical-p 0.8 --repetition-penalty 1.1"
    words += " --presence-penalty 0.5 --frequency-penalty 0.25 --no-repeat-ngram 3 --seed 7"
    assert matura_("generate", "base", "It", *words.split())[:2] == (0, "goes on\n")
    given = model[0][1]
    assert len(given) == 10
    assert (given["typical_p"], given["no_repeat_ngram"], given["frequency_penalty"]) == (0.8, 3, 0.25)
    assert set(options.SAMPLING) <= set(Sampling.model_fields)
    assert Sampling(**given).seed == 7


def test_generate_with_beams(matura_, model):
    assert matura_("generate", "base", "It", "--beams", "3", "--length-penalty", "0.5")[1] == "the best\n"
    assert model == [("It", {"beams": 3, "length_penalty": 0.5})]


def test_ctrl_c_ends_generate_with_130(matura_, model):
    code, out, err = matura_("generate", "base", "interrupt")
    assert (code, out, err) == (130, "go\n", "")


@pytest.mark.filterwarnings("default:cut")
def test_embed_shows_vectors_and_how_alike_they_are(matura_, model):
    code, out, err = matura_(
        "embed", "base", "one", "two", "--pool", "last", "--no-normalize", "--max-tokens", "9"
    )
    assert code == 0
    assert err == "matura: cut\n"
    assert model == [(["one", "two"], {"pool": "last", "normalize": False, "max_tokens": 9})]
    assert "1  3.0000 4.0000 ... (2 numbers)  one" in out
    assert out.splitlines()[-1].split() == ["2", "0.9600", "1.0000"]
    code, out, _ = matura_("embed", "base", "one", "--json")
    assert json.loads(out) == [{"text": "one", "embedding": [3.0, 4.0]}]
    assert matura_("embed", "base", "one", "--pool", "max")[0] == 2


def test_embed_reads_lines(matura_, model, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.StringIO("first\nsecond\n"))
    assert len(json.loads(matura_("embed", "base", "-", "--json")[1])) == 2
    assert model[0][0] == ["first", "second"]
    assert matura_("embed", "base", "-", "more")[0] == 1
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    assert matura_("embed", "base", "-")[2] == "matura: there is no text: stdin was empty\n"


def test_classify_tells_the_labels_of_texts(matura_, model):
    code, out, _ = matura_("classify", "base", "one", "two", "--max-tokens", "9")
    assert (code, out) == (0, "good 0.7500  one\ngood 0.7500  two\n")
    assert model == [(["one", "two"], {"max_tokens": 9})]
    assert matura_("classify", "base", "one", "--top-k", "2")[1] == "good 0.7500  bad 0.2500  one\n"
    _, out, _ = matura_("classify", "base", "one", "--json", "--top-k", "2")
    assert json.loads(out) == {"text": "one", "scores": {"good": 0.75, "bad": 0.25}}


def test_classify_reads_lines_and_rows(matura_, model, monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "stdin", io.StringIO("first\n\nsecond\n"))
    assert matura_("classify", "base", "-")[1].count("\n") == 2
    (tmp_path / "a.txt").write_text("third\n\nfourth")
    (tmp_path / "a.jsonl").write_text('{"text": "fifth\\n line", "label": 3}\n' * 300)
    for name in ("a.txt", "a.jsonl"):
        assert matura_("classify", "base", "--file", str(tmp_path / name))[0] == 0
    assert [texts[:2] for texts, _ in model[:2]] == [["first", "second"], ["third", "fourth"]]
    assert [len(texts) for texts, _ in model[2:]] == [256, 44]
    assert model[2][0][0] == "fifth\n line"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"text": "a"}\n{"txt": "a"}\n', "a.jsonl:2: expected a row such as"),
        ('{"text": " "}\n', "a.jsonl:1: `text` must be a text that is not empty"),
        ("[1]\n", "a.jsonl:1: expected a row"),
        ("", "there is no text"),
    ],
)
def test_classify_names_the_line_that_is_no_row(text, message, matura_, model, tmp_path):
    (tmp_path / "a.jsonl").write_text(text)
    code, _, err = matura_("classify", "base", "--file", str(tmp_path / "a.jsonl"))
    assert code == 1
    assert message in err
    assert "either texts or --file" in matura_("classify", "base")[2]
    assert "either texts or --file" in matura_("classify", "base", "a", "--file", "b")[2]


def test_score_prints_what_compares(matura_, model):
    code, out, _ = matura_("score", "base", "It", "--continuation", " goes on")
    assert (code, model) == (0, [("It", " goes on")])
    assert [line.split()[-1] for line in out.splitlines()] == ["bytes)", "7.3891", "0.7213"]
    assert "log-probability  -6.0000  (3 tokens, 12 bytes)" in out


def test_fill_lists_every_mask(matura_, tmp_path):
    made = tiny_hf.bert(tmp_path / "masked")
    code, out, err = matura_("fill", str(made), "the <mask> sat on the <mask>", "--top-k", "2")
    assert code == 0
    lines = out.splitlines()
    assert [lines[0], lines[3]] == ["[MASK] 1 of 2", "[MASK] 2 of 2"]
    assert len(lines) == 6
    assert float(lines[1].split()[0]) > float(lines[2].split()[0])
    assert lines[1].endswith("sat on the [MASK]")
    assert err == "matura: this model's mask is [MASK]; <mask> was taken for it\n"
    code, out, err = matura_("fill", str(made), "the [MASK] sat")
    assert (code, len(out.splitlines()), err) == (0, 5, "")
    code, _, err = matura_("fill", str(made), "the cat sat")
    assert code == 1
    assert "write [MASK] where a token is missing" in err


def type_lines(monkeypatch, *lines):
    rest = iter(lines)

    def read(prompt=""):
        line = next(rest, EOFError)
        if isinstance(line, type):
            raise line
        return line

    monkeypatch.setattr(builtins, "input", read)


def test_chat_of_many_turns(matura_, model, monkeypatch):
    type_lines(monkeypatch, "hello", "", "again", "/reset", "new", "/exit", "never")
    code, out, _ = matura_("chat", "base", "--system", "Be brief.", "--seed", "3")
    assert code == 0
    assert out == "you said hello\nyou said again\nThe conversation starts again.\nyou said new\n"
    assert [[message["content"] for message in messages] for messages, _ in model] == [
        ["Be brief.", "hello"],
        ["Be brief.", "hello", "you said hello", "again"],
        ["Be brief.", "new"],
    ]
    assert model[0][1] == {"seed": 3}


@pytest.mark.parametrize(
    ("head", "decoder", "advice"),
    [
        ("language", "some", "matura generate"),
        ("language", None, "matura fill` or `matura embed"),
    ],
)
def test_chat_needs_a_template_before_the_first_line(matura_, model, monkeypatch, head, decoder, advice):
    type_lines(monkeypatch, "never read")
    config = SimpleNamespace(head=SimpleNamespace(kind=head), decoder=decoder)
    plain = SimpleNamespace(format=SimpleNamespace(template=None), model=SimpleNamespace(config=config))
    monkeypatch.setattr(sys.modules["matura.api"], "load", lambda reference: plain)
    code, out, err = matura_("chat", "base")
    assert (code, out) == (1, "")
    assert "base has no chat template" in err
    assert advice in err


@pytest.mark.parametrize(
    ("head", "labels", "advice"),
    [
        ("none", (), "matura embed"),
        ("classifier", "ab", "matura classify"),
        ("classifier", "a", "judges answers"),
    ],
)
def test_chat_refuses_what_writes_no_text(matura_, model, monkeypatch, head, labels, advice):
    type_lines(monkeypatch, "never read")
    config = SimpleNamespace(head=SimpleNamespace(kind=head, labels=labels), decoder="some")
    judge = SimpleNamespace(format=SimpleNamespace(template="some"), model=SimpleNamespace(config=config))
    monkeypatch.setattr(sys.modules["matura.api"], "load", lambda reference: judge)
    code, out, err = matura_("chat", "life/judge")
    assert (code, out) == (1, "")
    assert "life/judge writes no text" in err
    assert advice in err


def test_chat_survives_ctrl_c_and_leaves_with_ctrl_d(matura_, model, monkeypatch):
    type_lines(monkeypatch, "interrupt", KeyboardInterrupt, "/help", "/nonsense", "on")
    code, out, _ = matura_("chat", "base")
    assert code == 0
    assert out.startswith("you said  [cut]\n")
    assert "Unknown command /nonsense." in out
    assert [message["content"] for message in model[-1][0]] == ["interrupt", "you said ", "on"]


def test_pull_prints_where_the_model_is(matura_, model):
    assert matura_("pull", "thing") == (0, f"{Workspace().model('thing')}\n", "")


def test_a_real_interrupt_exits_130_and_a_rerun_goes_on(tmp_path):
    """The same, with a real signal to a real process."""
    script = tmp_path / "go.py"
    script.write_text(
        "import os, sys, time\nfrom matura import cli\nfrom tests.core import fake_stages\n"
        "made = fake_stages.make_stages()\n"
        "class Slow(list):\n"
        "    def append(self, step):\n"
        "        print('at', step, file=sys.stderr, flush=True)\n"
        "        time.sleep(float(os.environ['AT_2']) if step == 2 else 0.1)\n"
        "made['finetune'].worked = Slow()\n"
        "sys.modules.update({f'fake_{kind}': module for kind, module in made.items()})\n"
        "cli.STAGES = {kind: f'fake_{kind}' for kind in made}\n"
        "cli.main()\n"
    )
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("first")
    (tmp_path / "adapt.yaml").write_text(RECIPE.replace("DOCS", str(tmp_path / "docs")))
    make_model(Workspace(tmp_path / "workspace"), "base")
    root = str(matura.__path__[0]).removesuffix("matura")
    environment = {**os.environ, "PYTHONPATH": root, "AT_2": "0.1"}
    words = [sys.executable, str(script), "run", "adapt.yaml"]
    with subprocess.Popen(
        words,
        cwd=tmp_path,
        env=environment | {"AT_2": "60"},  # until the signal, on a busy machine too
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        before = []
        for line in process.stderr:
            before.append(line)
            if line.startswith("at 2"):
                break
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130, "".join(before) + err
    assert "to go on: matura run adapt.yaml" in err
    assert "Traceback" not in err
    again = subprocess.run(words, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert again.returncode == 0
    assert "tuned      resuming  interrupted" in again.stdout
    assert "at 1\n" not in again.stderr
