"""A run that stops anywhere and goes on gives the bits of one that never stopped."""

import hashlib
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from matura.core.errors import ArtifactError
from matura.core.peft_settings import LoraConfig
from matura.core.settings import OptimizerConfig
from matura.model.peft.lora import apply_lora
from matura.model.transformer import Transformer
from matura.train import resume
from matura.train.batches import Example, PackedBatches, Rows, packing
from matura.train.loop import train
from matura.train.objectives import next_token
from matura.train.optim import build_optimizer, build_schedule
from tests.model.tiny import build, llama_config
from tests.train.test_batches import examples

STEPS = 7
CONFIG = OptimizerConfig(lr=1e-2)


def begun(count: int) -> list[Example]:
    """Examples that begin alike, which a row holds once where nothing is dropped."""
    beginning = tuple(range(1, 21))
    return [Example((*beginning, *one.ids), ((0.0,) * 20 + one.weights)) for one in examples(count)]


def fresh(method: str, dropout: float = 0.0) -> Transformer:
    config = llama_config()
    assert config.decoder is not None
    decoder = config.decoder.model_copy(update={"dropout": dropout})
    model = build(config.model_copy(update={"decoder": decoder}), dtype=torch.float32)
    return apply_lora(model, LoraConfig(rank=2), seed=1) if method == "lora" else model


def go_on(folder: Path, model: Transformer, until: int) -> list[float]:
    """Train from the checkpoint in `folder`, if there is one, and leave one behind after every step."""
    losses = []
    with resume.deterministic(5):
        batches = PackedBatches(
            [Rows(begun(9), tokens=90, seed=0), Rows(examples(4, 8), tokens=20, seed=1)],
            pack=packing(model),
        )
        optimizer = build_optimizer(model, CONFIG)
        start = 0
        if (found := resume.restore(folder, model, optimizer)) is not None:
            start, position = found
            batches.restore(position["batches"])
        schedule = build_schedule(CONFIG, STEPS)
        for step in train(model, batches, next_token, optimizer, schedule, steps=STEPS, start=start):
            losses.append(step.loss)
            resume.save(folder, step.step, model, optimizer, {"batches": batches.state()})
            if step.step == until:
                break
    return losses


def digest(model: nn.Module) -> str:
    parts = [p.detach().numpy().tobytes() for p in model.parameters()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.mark.parametrize("dropout", [0.0, 0.3])
@pytest.mark.parametrize("method", ["lora", "full"])
def test_stopped_after_any_step_it_ends_in_the_same_bits(method: str, dropout: float, tmp_path: Path) -> None:
    whole = fresh(method, dropout)
    (tmp_path / "whole").mkdir()
    expected = go_on(tmp_path / "whole", whole, STEPS)
    assert len(expected) == STEPS
    for stop in range(1, STEPS):
        folder = tmp_path / str(stop)
        folder.mkdir()
        losses = go_on(folder, fresh(method, dropout), stop)
        torch.manual_seed(999)  # another process has other random numbers
        again = fresh(method, dropout)
        losses += go_on(folder, again, STEPS)
        assert losses == expected
        assert digest(again) == digest(whole)


def test_the_dropout_above_really_draws(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    assert go_on(tmp_path / "a", fresh("full"), 3) != go_on(tmp_path / "b", fresh("full", 0.3), 3)


def test_two_runs_with_a_trained_embedding_have_one_hash(tmp_path: Path) -> None:
    digests = []
    for n in range(2):
        folder = tmp_path / str(n)
        folder.mkdir()
        model = fresh("full")
        before = model.embed.weight.detach().clone()
        go_on(folder, model, STEPS)
        assert not torch.equal(model.embed.weight, before)
        digests.append(digest(model))
    assert digests[0] == digests[1]


def test_determinism_is_only_for_the_run() -> None:
    assert not torch.are_deterministic_algorithms_enabled()
    with resume.deterministic(1):
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory  # a pass over every new tensor
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory
    with pytest.raises(ZeroDivisionError), resume.deterministic(1):
        _ = 1 // 0
    assert not torch.are_deterministic_algorithms_enabled()


def test_another_number_of_threads_is_a_warning(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    go_on(tmp_path, fresh("lora"), 2)
    try:
        torch.set_num_threads(threads + 1)
        model = fresh("lora")
        with pytest.warns(UserWarning, match=rf"made with {threads} threads, this run has {threads + 1}"):
            step, _ = resume.restore(tmp_path, model, build_optimizer(model, CONFIG)) or (None, None)
    finally:
        torch.set_num_threads(threads)
    assert step == 2
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert resume.restore(tmp_path, model, build_optimizer(model, CONFIG)) is not None


def test_a_checkpoint_of_another_model_is_refused(tmp_path: Path) -> None:
    go_on(tmp_path, fresh("lora"), 1)
    model = fresh("full")
    with pytest.raises(ArtifactError, match="belongs to another model; delete"):
        resume.restore(tmp_path, model, build_optimizer(model, CONFIG))
    wide = apply_lora(build(llama_config(), dtype=torch.float32), LoraConfig(rank=3))
    with pytest.raises(ArtifactError, match="belongs to another model; delete"):
        resume.restore(tmp_path, wide, build_optimizer(wide, CONFIG))


def test_a_damaged_checkpoint_says_what_to_do(tmp_path: Path) -> None:
    go_on(tmp_path, fresh("lora"), 1)
    path = tmp_path / resume.FILE
    path.write_bytes(path.read_bytes()[:100])
    model = fresh("lora")
    with pytest.raises(ArtifactError, match="delete"):
        resume.restore(tmp_path, model, build_optimizer(model, CONFIG))


def test_without_a_checkpoint_nothing_is_restored(tmp_path: Path) -> None:
    model = fresh("lora")
    before = digest(model)
    assert resume.restore(tmp_path, model, build_optimizer(model, CONFIG)) is None
    assert digest(model) == before


def test_the_random_state_of_a_gpu_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Dropout on a GPU draws from the GPU's own generator. (Stood in for: no GPU is needed.)"""
    states = {"cuda:1": torch.tensor([7, 8], dtype=torch.uint8)}
    monkeypatch.setattr(resume, "_gpu", lambda model: torch.device("cuda", 1))
    monkeypatch.setattr(torch.cuda, "get_rng_state", lambda device: states[str(device)])
    monkeypatch.setattr(
        torch.cuda, "set_rng_state", lambda state, device: states.update({str(device): state})
    )
    model = fresh("full")
    optimizer = build_optimizer(model, CONFIG)
    resume.save(tmp_path, 1, model, optimizer, {})
    saved = states["cuda:1"]
    states["cuda:1"] = torch.zeros(2, dtype=torch.uint8)
    assert resume.restore(tmp_path, model, optimizer) is not None
    assert torch.equal(states["cuda:1"], saved)
