"""A recipe under torchrun: rank 0 runs it, the others follow, and the model is that of one process."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import yaml

from matura.core import artifact
from matura.core.artifact import Artifact
from matura.core.errors import ConfigError
from matura.core.metrics import MetricsLog
from matura.core.settings import ParallelConfig
from matura.core.workspace import Workspace
from matura.model import store
from matura.stages import encode, pretrain
from matura.train import parallel, resume, sharded
from matura.train.samples import read_samples
from tests.killing import killed_after
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


@pytest.fixture
def one_of_torchrun(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """This process as the only one of a torchrun."""
    given = {"RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "localhost", "MASTER_PORT": "0"}
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    yield
    if dist.is_initialized():
        dist.destroy_process_group()


@pytest.mark.usefixtures("one_of_torchrun")
def test_one_process_of_torchrun_leaves_a_checkpoint_for_any_number(tmp_path: Path) -> None:
    """What is resumed on fewer or more ranks is a checkpoint in parts, also where one rank is left."""
    texts = corpus(tmp_path / "corpus", documents=60)
    tokens = run(encode, tmp_path / "tokens", corpus=texts, tokenizer=tokenizer(tmp_path / "tok"))
    settings = {**SETTINGS, "parallel": {"kind": "fsdp"}}
    place, save = tmp_path / "model", sharded.save

    def dying(folder: Path, step: int, *rest: Any) -> None:
        save(folder, step, *rest)
        if step == 6:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sharded, "save", dying)
        with pytest.raises(KeyboardInterrupt):
            run(pretrain, place, tokens=tokens, **settings)
    dist.destroy_process_group()
    assert [path.name for path in (place / "resume").iterdir()] == ["step-0000000006"]
    made = run(pretrain, place, tokens=tokens, **settings)
    alone = run(pretrain, tmp_path / "alone", tokens=tokens, **SETTINGS)
    one, other = (store.load(one.path).state_dict() for one in (made, alone))
    for name, tensor in other.items():
        torch.testing.assert_close(one[name], tensor, rtol=0, atol=2e-4)


@pytest.mark.usefixtures("one_of_torchrun")
@pytest.mark.parametrize(("kind", "looks"), [("ddp", 2), ("fsdp", 0)])
def test_weights_that_are_whole_write_samples(kind: str, looks: int, tmp_path: Path) -> None:
    texts = corpus(tmp_path / "corpus", documents=60)
    tokens = run(encode, tmp_path / "tokens", corpus=texts, tokenizer=tokenizer(tmp_path / "tok"))
    made = run(pretrain, tmp_path / "model", tokens=tokens, **SETTINGS, parallel={"kind": kind})
    assert len(read_samples(made.path)) == looks


@pytest.mark.usefixtures("one_of_torchrun")
def test_a_single_process_goes_on_with_torchrun_and_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = corpus(tmp_path / "corpus", documents=60)
    tokens = run(encode, tmp_path / "tokens", corpus=texts, tokenizer=tokenizer(tmp_path / "tok"))
    with killed_after(6):
        run(pretrain, tmp_path / "model", tokens=tokens, **SETTINGS)
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(name)
    resumed: list[Any] = []
    restore = resume.restore

    def noting(*given: Any) -> Any:
        found = restore(*given)
        resumed.append(found and found[0])
        return found

    monkeypatch.setattr(resume, "restore", noting)
    run(pretrain, tmp_path / "model", tokens=tokens, **SETTINGS)
    assert resumed == [6]


@pytest.mark.usefixtures("one_of_torchrun")
def test_a_process_of_torchrun_takes_a_gpu_of_its_own() -> None:
    with pytest.raises(ConfigError, match="device=cuda:1: each process of torchrun takes a GPU of its own"):
        parallel.start(ParallelConfig(kind="fsdp"), "cuda:1").__enter__()
    with pytest.raises(ConfigError, match=r"device=cuda:0: torch .* finds no GPU here"):
        parallel.start(ParallelConfig(kind="fsdp"), "cuda").__enter__()
