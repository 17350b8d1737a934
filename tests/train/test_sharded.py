"""Checkpoints in parts: exact on one process, atomic, and clear about what is wrong. (Many ranks: test_parallel.py.)"""

import errno
import os
import shutil
import warnings
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

from matura.core.errors import ArtifactError
from matura.model.transformer import Transformer
from matura.train import parts, sharded
from matura.train.optim import build_optimizer
from matura.train.ranks import ALONE, Ranks
from tests.model.tiny import build, llama_config
from tests.train.rank_cases import ADAMW, STEPS, train_on


def test_stopped_after_any_step_it_ends_in_the_same_bits(tmp_path: Path) -> None:
    steps, weights = train_on("tied", ALONE, 2)
    for stop in range(1, STEPS):
        folder = tmp_path / str(stop)
        folder.mkdir()
        first, _ = train_on("tied", ALONE, 2, folder=folder, until=stop)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            rest, resumed = train_on("tied", ALONE, 2, folder=folder)
        assert first + rest == steps
        assert all(torch.equal(resumed[name], tensor) for name, tensor in weights.items())
        assert [path.name for path in folder.iterdir()] == [f"step-{STEPS:010d}"]


def some_state(folder: Path, seed: int) -> Transformer:
    """A model that has been saved as step `seed`."""
    model = build(llama_config(), seed=seed)
    sharded.save(folder, seed, model, build_optimizer(model, ADAMW), {}, ALONE)
    return model


def restored(folder: Path) -> tuple[int, Transformer]:
    model = build(llama_config(), seed=99)
    found = sharded.restore(folder, model, build_optimizer(model, ADAMW), ALONE)
    assert found is not None
    return found[0], model


def test_the_random_state_goes_on(tmp_path: Path) -> None:
    some_state(tmp_path, 1)
    expected = torch.rand(3)
    torch.manual_seed(123)
    restored(tmp_path)
    assert torch.equal(torch.rand(3), expected)


def test_a_kill_while_saving_leaves_the_last_complete_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = some_state(tmp_path, 1)

    def killed(folder: Path, tensors: Mapping[str, Tensor], ranks: Ranks) -> None:
        parts.write_parts(folder, dict(list(tensors.items())[:3]), ranks)
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(sharded, "write_parts", killed)
        with pytest.raises(KeyboardInterrupt):
            some_state(tmp_path, 2)
    assert (
        len(list(tmp_path.iterdir())) == 2
    )  # what the kill left is there, and nobody takes it for a checkpoint
    step, model = restored(tmp_path)
    assert step == 1
    assert torch.equal(model.embed.weight, kept.embed.weight)
    newer = some_state(tmp_path, 2)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000002"]
    assert torch.equal(restored(tmp_path)[1].embed.weight, newer.embed.weight)


def test_a_full_disk_is_told_and_costs_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    kept = some_state(tmp_path, 1)

    def full(*given: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patched:
        patched.setattr(parts.HuggingFaceStorageWriter, "write_data", full)
        with pytest.raises(ArtifactError, match=r"The disk is full: .* while writing a checkpoint"):
            some_state(tmp_path, 2)
    step, model = restored(tmp_path)
    assert step == 1
    assert torch.equal(model.embed.weight, kept.embed.weight)


@pytest.mark.parametrize("renames", [0, 1])
def test_a_step_that_is_saved_again_is_never_without_a_checkpoint(
    renames: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training that went back saves the step it went back to, over the only checkpoint there is."""
    kept = some_state(tmp_path, 1)
    rename, left = Path.rename, iter(range(renames))

    def dying(path: Path, target: Path) -> Path:
        if next(left, None) is None:
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "rename", dying)
        with pytest.raises(KeyboardInterrupt):
            some_state(tmp_path, 1)
    step, model = restored(tmp_path)
    assert step == 1
    assert torch.equal(model.embed.weight, kept.embed.weight)
    some_state(tmp_path, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["step-0000000001"]


def test_without_a_checkpoint_nothing_is_restored(tmp_path: Path) -> None:
    model = build(llama_config())
    assert sharded.restore(tmp_path, model, build_optimizer(model, ADAMW), ALONE) is None


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    some_state(tmp_path, 1)
    for other in (llama_config(layers=1), llama_config(vocabulary=98)):
        model = build(other)
        with pytest.raises(ArtifactError, match="belongs to another model; delete"):
            sharded.restore(tmp_path, model, build_optimizer(model, ADAMW), ALONE)


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    some_state(tmp_path / "whole", 1)
    folder = tmp_path / "whole" / "step-0000000001"
    (weights,) = folder.glob("*.safetensors")
    for damage in ("cut", "gone", "note", "header"):
        broken = tmp_path / damage
        shutil.copytree(folder, broken / folder.name)
        part = broken / folder.name / weights.name
        if damage == "cut":
            part.write_bytes(part.read_bytes()[:-5])
        elif damage == "gone":
            part.unlink()
        elif damage == "note":
            (broken / folder.name / sharded.NOTE).write_text("{")
        else:
            part.write_bytes(b"\xff" * part.stat().st_size)
        with pytest.raises(ArtifactError, match=r"cannot be read: .*; delete .* to start this stage again"):
            restored(broken)
