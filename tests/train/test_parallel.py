"""Many ranks train the model that one process trains. One launch of torchrun on the CPU answers for all cases.

`MATURA_TEST_RANKS=4` runs the grids of four ranks instead: two by two of sharding, replicas and tensor parallelism.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from matura.core.errors import ConfigError
from matura.core.settings import ParallelConfig
from matura.train import parallel
from matura.train.loop import Step
from matura.train.ranks import ALONE
from tests.model.tiny import build, llama_config
from tests.train.rank_cases import MODELS, STEPS, train_on

RANKS = int(os.environ.get("MATURA_TEST_RANKS", "2"))
CASES = {
    2: [
        *("tied/ddp-1-1", "tied/fsdp-1-1", "tied/none-2-1", "tied/fsdp-2-1", "untied/none-2-1"),
        *("qk_norm/none-2-1", "lora/fsdp-1-1", "recomputed/fsdp-1-1"),
        *("bert/ddp-1-1", "bert/none-2-1", "muon/ddp-1-1", "muon/fsdp-1-1", "muon/none-2-1"),
    ],
    4: [
        *("tied/fsdp-1-1", "tied/fsdp-2-1", "tied/fsdp-1-2", "tied/fsdp-2-2", "untied/fsdp-2-1"),
        *("bert/fsdp-2-1", "t5/fsdp-2-1", "t5/fsdp-1-2", "recomputed/fsdp-2-1"),
        *("muon/fsdp-2-1", "muon/fsdp-1-2"),
    ],
}[RANKS]
MORE = {
    2: ["recomputed/none-2-1", "t5/fsdp-1-1", "t5/none-2-1", "muon/fsdp-2-1"],
    4: [],
}[RANKS]
"""What has all its parts in other cases, a `t5` in the one that is resumed."""
RESUMED = {
    2: ["tied/ddp-1-1/fsdp-1-1", "tied/fsdp-1-1/ddp-1-1", "t5/none-2-1/fsdp-1-1", "muon/fsdp-1-1/alone"],
    4: ["tied/fsdp-2-1/fsdp-1-1", "t5/fsdp-1-2/fsdp-2-1", "tied/fsdp-2-1/alone"],
}[RANKS]
LOW = {
    2: ["bf16:tied/fsdp-1-1", "fp16:tied/fsdp-1-1"],
    4: ["bf16:tied/fsdp-2-1"],
}[RANKS]


def launch(*arguments: str, ranks: int = RANKS) -> subprocess.CompletedProcess[str]:
    """Run `python -m arguments` in several processes that meet on a free port of this machine."""
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)]
    command += ["--rdzv-backend", "c10d", "--rdzv-endpoint", "localhost:0", "-m", *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launched(tmp_path_factory.mktemp("ranks"), *CASES, *RESUMED, *LOW, "stops", "diverges")


def launched(folder: Path, *cases: str) -> Path:
    """A folder with what the ranks have made of cases."""
    done = launch("tests.train.rank_cases", str(folder), *cases)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


def path_of(folder: Path, case: str, suffix: str) -> Path:
    return folder / (case.replace("/", "_").replace(":", "_") + suffix)


ALONE_RUNS: dict[str, tuple[list[Step], dict[str, Tensor]]] = {}


def alone(name: str) -> tuple[list[Step], dict[str, Tensor]]:
    """One process, all rows of a step in one batch."""
    if name not in ALONE_RUNS:
        ALONE_RUNS[name] = train_on(name, ALONE, 1)
    return ALONE_RUNS[name]


def check(case: str, folder: Path, expected: tuple[list[Step], dict[str, Tensor]], tolerance: float) -> None:
    """The steps that `case` has made (losses are added up in float32) and its final weights are the expected ones."""
    found = load_file(path_of(folder, case, ".safetensors"))
    steps, weights = expected
    numbers = torch.tensor([[s.loss, s.grad_norm, s.weight, s.tokens] for s in steps], dtype=torch.float64)
    made = found.pop("steps")
    torch.testing.assert_close(made, numbers[-len(made) :], rtol=max(tolerance, 1e-6), atol=0)
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        torch.testing.assert_close(found[name].to(weight.dtype), weight, rtol=0, atol=tolerance, msg=name)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", CASES)
def test_ranks_give_the_weights_of_one_process(case: str, results: Path) -> None:
    trained_alike(case, results)


@pytest.fixture(scope="module")
def more(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return launched(tmp_path_factory.mktemp("more"), *MORE)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", MORE)
def test_ranks_give_the_weights_of_one_process_in_more_cases(case: str, more: Path) -> None:
    trained_alike(case, more)


def trained_alike(case: str, results: Path) -> None:
    """Every step and the final weights are those of one process."""
    name = case.split("/")[0]
    steps, weights = alone(name)
    assert all(step.grad_norm > 0.5 for step in steps)  # every step was clipped
    untrained = build(MODELS[name][0]).state_dict()
    moved = max(float((w - untrained[n]).abs().max()) for n, w in weights.items() if n in untrained)
    assert moved > 1e-3 or name == "lora"
    check(case, results, (steps, weights), 1e-9)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", RESUMED)
def test_a_checkpoint_goes_on_with_another_grid(case: str, results: Path) -> None:
    name = case.split("/")[0]
    steps, weights = alone(name)
    if not case.endswith("alone"):
        check(case, results, (steps, weights), 1e-9)
        return
    with pytest.warns(UserWarning, match=f"made by {RANKS} processes, this run has 1: it goes on correctly"):
        rest, resumed = train_on(name, ALONE, 1, folder=path_of(results, case, ".checkpoint"))
    assert [step.step for step in rest] == [STEPS]
    for one, tensor in weights.items():
        torch.testing.assert_close(resumed[one], tensor, rtol=0, atol=1e-9, msg=one)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("case", LOW)
def test_ranks_with_low_precision_stay_near_full_precision(case: str, results: Path) -> None:
    steps, _ = alone("tied")
    made = load_file(path_of(results, case, ".safetensors"))["steps"]
    exact = torch.tensor([[s.loss, s.grad_norm] for s in steps], dtype=torch.float64)
    error = ((made[:, :2] - exact) / exact).abs().max()
    assert 1e-7 < error < (0.05 if case.startswith("bf16") else 0.01)


def test_one_process_without_torchrun_is_alone() -> None:
    with parallel.start(ParallelConfig()) as ranks:
        assert ranks is ALONE
    model = build(llama_config())
    assert parallel.place(model, ALONE) is ALONE
    with pytest.raises(ConfigError, match="needs several processes; start them with `torchrun"):
        parallel.start(ParallelConfig(kind="fsdp")).__enter__()


@pytest.mark.parametrize(
    ("config", "world", "sizes"),
    [
        (ParallelConfig(kind="ddp"), 6, (6, 1, 1)),
        (ParallelConfig(kind="fsdp"), 6, (1, 6, 1)),
        (ParallelConfig(kind="fsdp", tensor=2, replicas=3), 24, (3, 4, 2)),
        (ParallelConfig(tensor=4), 4, (1, 1, 4)),
    ],
)
def test_the_grid_of_ranks(config: ParallelConfig, world: int, sizes: tuple[int, int, int]) -> None:
    assert parallel.grid(config, world) == sizes


def test_grids_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match="no multiple of replicas x tensor = 1 x 4"):
        parallel.grid(ParallelConfig(kind="fsdp", tensor=4), 6)
    with pytest.raises(ConfigError, match="use 1: set"):
        parallel.grid(ParallelConfig(), 2)
    with pytest.raises(ValueError, match="use kind=fsdp"):
        ParallelConfig(kind="ddp", tensor=2)
    with pytest.raises(ValueError, match="every rank is a replica"):
        ParallelConfig(kind="ddp", replicas=2)
