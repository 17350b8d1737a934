"""A recipe under torchrun: rank 0 runs it, the others follow, and the model is that of one process."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.metrics import MetricsLog
from matura.core.workspace import Workspace
from matura.model import store
from matura.stages import encode, pretrain
from tests.stages.test_encode import tokenizer
from tests.tiny_models import corpus, run

SETTINGS = {
    "shape": {"layers": 1, "width": 32},
    "sizes": {"tokens": "4K", "step": 512, "rows": 4, "sequence": 32},
    "watch": {"every": 4},
    "save_every": 3,
}


def start(tokens: Artifact, workspace: Path, ranks: int) -> Artifact:
    """`matura run` in several processes that torchrun starts."""
    stage = {"stage": "pretrain", "tokens": str(tokens.path), "parallel": {"kind": "fsdp"}, **SETTINGS}
    path = workspace.with_suffix(".yaml")
    path.write_text(yaml.safe_dump({"name": "ranks", "stages": {"model": stage}}))
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", "matura", "run", str(path)]
    environment = {**os.environ, "MATURA_WORKSPACE": str(workspace), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr[:4000]
    assert done.stdout.count("made") == 1  # followers say nothing
    (place,) = Workspace(workspace).read_run("ranks").values()
    return artifact.load(place)


@pytest.mark.timeout(300)
def test_two_processes_make_the_model_of_one(tmp_path: Path) -> None:
    texts = corpus(tmp_path / "corpus", documents=60)
    tokens = run(encode, tmp_path / "tokens", corpus=texts, tokenizer=tokenizer(tmp_path / "tok"))
    alone = run(pretrain, tmp_path / "one", tokens=tokens, **SETTINGS)
    shared = start(tokens, tmp_path / "two", ranks=2)
    artifact.verify(shared)
    one, two = (store.load(made.path).state_dict() for made in (alone, shared))
    for name, tensor in one.items():
        torch.testing.assert_close(
            two[name], tensor, rtol=0, atol=2e-4
        )  # float32, and Muon's five iterations
    figures = [made.summary["heldout"]["heldout_bpb"] for made in (alone, shared)]
    assert figures[1] == pytest.approx(figures[0], rel=1e-4)
    steps = [row["step"] for row in MetricsLog(shared.path / "metrics.jsonl").rows()]
    assert steps == list(range(9))  # one log, written by one process
