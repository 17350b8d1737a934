"""Recomputed activations and compiled blocks change nothing but time and memory."""

from typing import Any

import pytest
import torch
from torch import nn

from matura.core.errors import ConfigError
from matura.core.settings import Recompute
from matura.model import config as c
from matura.train import transforms
from matura.train.batches import pack
from matura.train.objectives import next_token
from matura.train.transforms import blocks, checkpoint_activations, compile_blocks
from tests.model.tiny import build, gpt_stack, llama_config
from tests.train.test_batches import examples

SETTINGS: tuple[Recompute, ...] = ("none", 2, "full")


def relative() -> c.ModelConfig:
    stack = gpt_stack().model_copy(
        update={"position": c.RelativeBias(buckets=8, max_distance=32), "dropout": 0.2}
    )
    return c.ModelConfig(vocabulary=97, context=64, decoder=stack)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    next_token(model.train(), pack(examples(4))).backward()  # type: ignore[arg-type]
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("config", [llama_config(), llama_config(tied=False), relative()])
@pytest.mark.parametrize("every", ["full", 2])
def test_recomputed_activations_give_the_same_gradients(config: c.ModelConfig, every: Recompute) -> None:
    plain = build(config)
    names = list(plain.state_dict())
    expected = gradients(plain)
    model = checkpoint_activations(build(config), every)
    assert list(model.state_dict()) == names
    found = gradients(model)
    assert found.keys() == expected.keys()
    for name, gradient in expected.items():
        torch.testing.assert_close(found[name], gradient, rtol=0, atol=1e-12, msg=name)


def kept_bytes(model: nn.Module) -> int:
    """Bytes that the graph of one loss holds for its backward pass, weights aside."""
    weights = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        hidden = model.decode(torch.arange(60)[None])  # type: ignore[operator]
        assert hidden.requires_grad
    return sum(kept.values())


def test_recomputed_activations_are_not_kept() -> None:
    sizes = [
        kept_bytes(checkpoint_activations(build(llama_config(layers=4)).train(), every)) for every in SETTINGS
    ]
    assert sizes[2] < sizes[0] / 3
    assert sizes[2] < sizes[1] < sizes[0]


def test_every_other_block_and_none() -> None:
    def changed(every: Recompute) -> list[bool]:
        model = checkpoint_activations(build(llama_config(layers=3)), every)
        return ["forward" in vars(block) for block in blocks(model)]

    assert changed("none") == [False, False, False]
    assert changed("full") == [True, True, True]
    assert changed(2) == [True, False, True]


def test_every_block_is_compiled_inside_what_recomputes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[str] = []

    def compiled(forward: Any, *, dynamic: bool) -> Any:
        def run(*args: Any, **given: Any) -> Any:
            ran.append("compiled")
            return forward(*args, **given)

        return run

    monkeypatch.setattr(torch, "compile", compiled)
    monkeypatch.setattr(transforms.shutil, "which", lambda name: "/usr/bin/g++")
    expected = gradients(build(llama_config()))
    found = gradients(checkpoint_activations(compile_blocks(build(llama_config()))))
    assert len(ran) == 4  # two blocks, each forward and once more for its gradients
    assert all(torch.equal(found[name], gradient) for name, gradient in expected.items())
    with torch.no_grad():
        next_token(compile_blocks(build(llama_config())), pack(examples(4)))
    assert len(ran) == 4  # what is only looked at has many shapes, and would be compiled for each
    with pytest.raises(ValueError, match="comes before"):
        compile_blocks(checkpoint_activations(build(llama_config())))


def test_no_compiler_is_a_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(ConfigError, match=r"needs a C\+\+ compiler, and g\+\+ or .* install one"):
        compile_blocks(build(llama_config()))
    monkeypatch.setenv("CXX", "my-compiler")
    with pytest.raises(ConfigError, match="my-compiler is not on the PATH"):
        compile_blocks(build(llama_config()))
