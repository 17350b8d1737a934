"""The whole life of a tiny model through the command line: raw notes to an examined, merged assistant, and kill -9.

The slow twin with a real model is `python -m benchmarks kill`.
"""

import io
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch  # tests/conftest.py: one thread, as in the processes that are killed

import matura
from matura import cli
from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.workspace import Workspace
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

# One process for both kills, since most of what one costs is to load what trains. A fork of it runs each command and
# kills itself, as `kill -9` would: after the first checkpoint, or with the second one half written.
KILLER = """\
import json, os, signal, sys
from pathlib import Path
import torch
import matura.core.files as files
from matura import cli
torch.optim.AdamW([torch.nn.Parameter(torch.ones(1))])  # loads what all forks need
def run(when, words):
    saves, real = [], os.replace
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
    sys.argv = ["matura", *words]
    cli.main()
for when, words in json.loads(sys.argv[1]):
    fork = os.fork()
    if not fork:
        try:
            run(when, words)
        finally:
            os._exit(1)  # it was to be killed
    print(os.waitstatus_to_exitcode(os.waitpid(fork, 0)[1]), flush=True)
"""
pytestmark = pytest.mark.timeout(300)


@dataclass(frozen=True)
class Life:
    """A folder where `life.yaml` was run: what that printed, and what each stage has made."""

    place: Path
    code: int
    out: str
    err: str
    stages: dict[str, Artifact]


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    place = tmp_path_factory.mktemp("life")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MATURA_WORKSPACE", raising=False)
        patch.delenv("MATURA_DEBUG", raising=False)
        patch.chdir(place)
        Path("notes").mkdir()
        for n in range(20):
            lines = (
                f"Note {n}, line {line}: hello, {n * 31 + line} is a number and ends." for line in range(6)
            )
            Path("notes", f"{n:02}.md").write_text(f"# Note {n}\n\n" + "\n".join(lines) + "\n")
        write_gguf_model(Path("tiny.gguf"), network())
        Path("life.yaml").write_text(RECIPE.format(method="lora") + MERGE)
        Path("full.yaml").write_text(RECIPE.format(method="full"))
        code, out, err = matura_("run", "life.yaml")
        yield Life(place, code, out, err, {stage: made(stage) for stage in STAGES})


def killed(recipe: str) -> list[str]:
    """How the two processes ended that ran a recipe in a workspace of its own."""
    words = ["run", f"{recipe}.yaml", "--workspace", f"killed {recipe}"]
    runs = [(when, words) for when in ("between steps", "while saving")]
    environment = {**os.environ, "PYTHONPATH": str(Path(matura.__path__[0]).parent), "OMP_NUM_THREADS": "1"}
    Path("killer.py").write_text(KILLER)
    command = [sys.executable, "killer.py", json.dumps(runs)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    ends = [line for line in done.stdout.splitlines() if line.lstrip("-").isdigit()]
    assert len(ends) == len(runs), done.stderr
    return ends


def matura_(*words: str) -> tuple[int, str, str]:
    """`matura words` in this process: its exit code, and what it prints."""
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        patch.setattr(sys, "argv", ["matura", *words])
        try:
            cli.main()
            code = 0
        except SystemExit as left:
            code = int(left.code or 0)
    return code, out.getvalue(), err.getvalue()


def made(stage: str, workspace: str = "workspace") -> Artifact:
    found = Workspace(workspace).find(f"life/{stage}")
    artifact.verify(found)
    return found


def test_raw_notes_to_an_assistant_and_everything_is_reused(life: Life) -> None:
    assert (life.code, life.err.count("Traceback")) == (0, 0)
    assert life.out.splitlines()[-1] == "Talk to it: matura chat life/assistant"
    report = next(line for line in life.out.splitlines() if line.startswith("Report: ") and "exam" in line)
    page = Path(report.removeprefix("Report: ")).read_text()
    assert all(words in page for words in ("Who are you?", "What happened to the documents", "Loss"))
    kinds = [life.stages[stage].kind for stage in STAGES]
    assert kinds == ["corpus", "conversations", "model", "evaluation", "model"]

    rows = life.stages["tuned"].file("metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line) for line in rows]
    assert losses[-1]["heldout_loss"] < losses[0]["heldout_loss"]

    workspace = "another"
    shutil.copytree("workspace", workspace)
    drawn = matura_("lineage", "life/assistant", "--workspace", workspace)[1]
    assert str(Path("notes").resolve()) in drawn
    assert str(Path("tiny.gguf").resolve()) in drawn

    code, out, _ = matura_("lineage", "life/assistant", "--verify", "--workspace", workspace)
    assert code == 0
    assert out.splitlines()[-1].endswith("none damaged.")
    before = {stage: one.id for stage, one in life.stages.items()}
    code, out, _ = matura_("run", "life.yaml", "--workspace", workspace)
    assert "Nothing had changed: all 5 stages were reused" in out
    assert {stage: made(stage, workspace).id for stage in STAGES} == before

    code, out, _ = matura_("run", "life.yaml", "tuned.seed=1", "--workspace", workspace)
    assert code == 0
    changed = {stage for stage in STAGES if made(stage, workspace).id != before[stage]}
    assert changed == {"tuned", "exam", "assistant"}

    weights = made("assistant", workspace).file("model.safetensors")
    weights.write_bytes(weights.read_bytes()[:-1] + b"?")
    code, out, _ = matura_("lineage", "life/assistant", "--verify", "--workspace", workspace)
    assert code == 1
    assert "model.safetensors: its content was changed" in out


@pytest.fixture
def alone(life: Life, tmp_path: Path) -> Iterator[Path]:
    """The merged model in another place, and no more where it was made."""
    place = life.stages["assistant"].path
    elsewhere = place.rename(tmp_path / "elsewhere")
    yield elsewhere
    elsewhere.rename(place)


def test_the_merged_model_needs_nothing_else_and_talks_like_the_adapted_one(life: Life, alone: Path) -> None:
    model, adapted = matura.load(alone), matura.load(life.stages["tuned"].path)
    messages = [{"role": "user", "content": "hello <|im_end|>"}]
    said = model.chat(messages, max_new_tokens=12, temperature=0)
    assert said == adapted.chat(messages, max_new_tokens=12, temperature=0)
    assert model.generate("Note 3", max_new_tokens=8, temperature=0)
    ids = torch.tensor([model.tokenizer.encode("Note 3, line 2: hello")])
    ours, theirs = (m.model.logits(m.model.decode(ids)) for m in (model, adapted))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    parent = matura.load("./tiny.gguf")
    assert not torch.allclose(parent.model.logits(parent.model.decode(ids)), ours, atol=1e-2)


@pytest.mark.parametrize(
    ("recipe", "weights"), [("life", "adapter"), pytest.param("full", "model", marks=pytest.mark.slow)]
)
def test_killed_twice_it_ends_with_the_same_bits(life: Life, recipe: str, weights: str) -> None:
    assert killed(recipe) == ["-9"] * 2
    workspace = f"killed {recipe}"
    code, out, _ = matura_("run", f"{recipe}.yaml", "--workspace", workspace)
    assert code == 0
    assert "tuned      resuming  interrupted at step" in out
    assert out.count(" reused ") == 2
    stages = STAGES if recipe == "life" else STAGES[:-1]
    alone = life.stages if recipe == "life" else _full()
    for stage in stages:
        assert made(stage, workspace).id == alone[stage].id
    name = f"{weights}.safetensors"
    tuned = made("tuned", workspace)
    assert tuned.file(name).read_bytes() == alone["tuned"].file(name).read_bytes()
    assert tuned.record["resumed"] == 2
    if recipe == "life":
        whole = alone["assistant"].file("model.safetensors").read_bytes()
        assert made("assistant", workspace).file("model.safetensors").read_bytes() == whole


def _full() -> dict[str, Artifact]:
    """The stages of `full.yaml`, never killed; its documents and questions are those of the life."""
    shutil.copytree("workspace", "full")
    code, out, _ = matura_("run", "full.yaml", "--workspace", "full")
    assert (code, out.count(" reused ")) == (0, 2)
    return {stage: made(stage, "full") for stage in STAGES[:-1]}
