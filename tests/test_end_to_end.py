"""The whole life of a tiny model through the command line: raw notes to an examined, merged assistant, and kill -9.

The slow twin with a real model is `python -m benchmarks kill`.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import matura
from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.workspace import Workspace
from tests.test_cli import Shell
from tests.tiny_models import network, write_gguf_model

STAGES = ("documents", "replay", "tuned", "exam", "assistant")
RECIPE = """\
name: life
stages:
  documents: {{stage: curate, path: notes, heldout: 4}}
  replay:
    stage: synthesize
    model: ./tiny.gguf
    conversations: 6
    texts: 4
    heldout: 2
    batch: 4
    min_characters: 1
    question: {{max_new_tokens: 8}}
    answer: {{max_new_tokens: 12}}
    text: {{max_new_tokens: 16}}
  tuned:
    stage: finetune
    model: ./tiny.gguf
    corpus: $documents
    replay: $replay
    method: {method}
    tokens: 1400
    tokens_per_step: 128
    sequence: 64
    save_every: 2
    meter_every: 4
    meter_tokens: 64
  exam:
    stage: evaluate
    model: $tuned
    parent: ./tiny.gguf
    corpus: $documents
    replay: $replay
    exams: null
    texts: {{documents: 4, document_tokens: 48}}
    questions: ["Who are you?"]
    answer_tokens: 4
    resamples: 1000
    gates: [{{metric: domain.bpb, fail_on: regressed}}]
"""
MERGE = "  assistant: {stage: merge, model: $tuned, after: exam}\n"

# Kills its own process, as `kill -9` would: after the first checkpoint, or with the second one half written.
KILLER = """\
import os, signal, sys
from pathlib import Path
import matura.core.files as files
from matura import cli
when, saves, real = sys.argv.pop(1), [], files.os.replace
def replace(source, target):
    if Path(target).name != "checkpoint.safetensors":
        return real(source, target)
    saves.append(target)
    if when == "between steps" or len(saves) == 2:
        if when == "between steps":
            real(source, target)
        else:
            os.truncate(source, 100)
        os.kill(os.getpid(), signal.SIGKILL)
    return real(source, target)
files.os.replace = replace
cli.main()
"""


@pytest.fixture(autouse=True)
def one_thread():
    """The processes that are killed use as many threads as this one, else the last bits may differ."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def matura_(capsys, monkeypatch, tmp_path):
    monkeypatch.delenv("MATURA_WORKSPACE", raising=False)
    monkeypatch.delenv("MATURA_DEBUG", raising=False)
    monkeypatch.chdir(tmp_path)
    Path("notes").mkdir()
    for n in range(20):
        lines = (f"Note {n}, line {line}: hello, {n * 31 + line} is a number and ends." for line in range(6))
        Path("notes", f"{n:02}.md").write_text(f"# Note {n}\n\n" + "\n".join(lines) + "\n")
    write_gguf_model(Path("tiny.gguf"), network())
    Path("life.yaml").write_text(RECIPE.format(method="lora") + MERGE)
    Path("full.yaml").write_text(RECIPE.format(method="full"))
    return Shell(capsys, monkeypatch)


def made(stage: str, workspace: str = "workspace") -> Artifact:
    found = Workspace(workspace).find(f"life/{stage}")
    artifact.verify(found)
    return found


def test_raw_notes_to_an_assistant_and_everything_is_reused(matura_):
    code, out, err = matura_("run", "life.yaml")
    assert (code, err.count("Traceback")) == (0, 0)
    assert out.splitlines()[-1] == "Talk to it: matura chat life/assistant"
    report = next(line for line in out.splitlines() if line.startswith("Report: ") and "exam" in line)
    page = Path(report.removeprefix("Report: ")).read_text()
    assert all(words in page for words in ("Who are you?", "What happened to the documents", "Loss"))
    kinds = [made(stage).kind for stage in STAGES]
    assert kinds == ["corpus", "conversations", "model", "evaluation", "model"]

    losses = [json.loads(line) for line in made("tuned").file("metrics.jsonl").read_text().splitlines()]
    assert losses[-1]["heldout_loss"] < losses[0]["heldout_loss"]

    drawn = matura_("lineage", "life/assistant")[1]
    assert str(Path("notes").resolve()) in drawn
    assert str(Path("tiny.gguf").resolve()) in drawn

    before = {stage: made(stage).id for stage in STAGES}
    code, out, _ = matura_("run", "life.yaml")
    assert "Nothing had changed: all 5 stages were reused" in out
    assert {stage: made(stage).id for stage in STAGES} == before

    code, out, _ = matura_("run", "life.yaml", "tuned.seed=1")
    assert code == 0
    changed = {stage for stage in STAGES if made(stage).id != before[stage]}
    assert changed == {"tuned", "exam", "assistant"}


def test_the_merged_model_needs_nothing_else_and_talks_like_the_adapted_one(matura_):
    assert matura_("run", "life.yaml")[0] == 0
    merged, tuned = made("assistant"), made("tuned")
    alone = Path("elsewhere")
    merged.path.rename(alone)
    model, adapted = matura.load(alone), matura.load(tuned.path)
    messages = [{"role": "user", "content": "hello <|im_end|>"}]
    said = model.chat(messages, max_new_tokens=12, temperature=0)
    assert said == adapted.chat(messages, max_new_tokens=12, temperature=0)
    assert model.generate("Note 3", max_new_tokens=8, temperature=0)
    ids = torch.tensor([model.tokenizer.encode("Note 3, line 2: hello")])
    ours, theirs = (m.model.logits(m.model.decode(ids)) for m in (model, adapted))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    parent = matura.load("./tiny.gguf")
    assert not torch.allclose(parent.model.logits(parent.model.decode(ids)), ours, atol=1e-2)


@pytest.mark.parametrize(("recipe", "weights"), [("life", "adapter"), ("full", "model")])
def test_killed_twice_it_ends_with_the_same_bits(matura_, recipe, weights):
    killed = [f"{recipe}.yaml", "--workspace", "killed"]
    root = str(Path(matura.__path__[0]).parent)
    environment = {**os.environ, "PYTHONPATH": root, "OMP_NUM_THREADS": "1"}
    Path("killer.py").write_text(KILLER)
    for when in ("between steps", "while saving"):
        words = [sys.executable, "killer.py", when, "run", *killed]
        died = subprocess.run(words, env=environment, capture_output=True, text=True)
        assert died.returncode == -9, died.stderr
    code, out, _ = matura_("run", *killed)
    assert code == 0
    assert "tuned      resuming  interrupted at step" in out
    assert out.count(" reused ") == 2
    assert matura_("run", f"{recipe}.yaml", "--workspace", "alone")[0] == 0
    stages = STAGES if recipe == "life" else STAGES[:-1]
    for stage in stages:
        assert made(stage, "killed").id == made(stage, "alone").id
    name = f"{weights}.safetensors"
    one, other = (made("tuned", place).file(name).read_bytes() for place in ("killed", "alone"))
    assert one == other
    assert made("tuned", "killed").record["resumed"] == 2
    if recipe == "life":
        one, other = (made("assistant", place).file("model.safetensors") for place in ("killed", "alone"))
        assert one.read_bytes() == other.read_bytes()
