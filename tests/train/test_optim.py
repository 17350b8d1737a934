"""Optimizer groups, and schedules at their exact values."""

import math

import pytest

from matura.core.peft_settings import LoraConfig
from matura.core.settings import OptimizerConfig
from matura.model.peft.lora import apply_lora, lora_state
from matura.train.optim import build_optimizer, build_schedule, scale_rate
from tests.model.tiny import build, llama_config


def test_matrices_decay_and_vectors_do_not() -> None:
    model = build(llama_config())
    config = OptimizerConfig(lr=0.1, betas=(0.8, 0.9), eps=1e-6, weight_decay=0.3)
    matrices, vectors = build_optimizer(model, config).param_groups
    assert all(p.dim() >= 2 for p in matrices["params"])
    assert all(p.dim() == 1 for p in vectors["params"])
    assert len(matrices["params"]) + len(vectors["params"]) == len(list(model.parameters()))
    assert (matrices["weight_decay"], vectors["weight_decay"]) == (0.3, 0.0)
    assert all((g["lr"], g["betas"], g["eps"]) == (0.1, (0.8, 0.9), 1e-6) for g in (matrices, vectors))


def test_only_what_is_trained_is_optimized() -> None:
    model = apply_lora(build(llama_config()), LoraConfig(rank=2))
    (group,) = build_optimizer(model, OptimizerConfig()).param_groups
    assert len(group["params"]) == len(lora_state(model))


def test_some_parameters_learn_at_a_rate_of_their_own() -> None:
    for kind in ("adamw", "muon"):
        model = build(llama_config())
        optimizer = build_optimizer(model, OptimizerConfig(kind=kind))
        before = {id(p) for group in optimizer.param_groups for p in group["params"]}
        fast = [p for name, p in model.named_parameters() if name.startswith("decoder.blocks.0")]
        scale_rate(optimizer, fast, 5.0)
        scales = {
            id(p): group.get("lr_scale", 1.0) for group in optimizer.param_groups for p in group["params"]
        }
        assert set(scales) == before
        again = build_optimizer(model, OptimizerConfig(kind=kind)).param_groups
        plain = {id(p): group.get("lr_scale", 1.0) for group in again for p in group["params"]}
        assert all(scales[id(p)] == 5 * plain[id(p)] for p in fast)
        assert all(scales[key] == plain[key] for key in set(plain) - {id(p) for p in fast})
        decays = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
        assert all((decays[id(p)] > 0) == (p.dim() >= 2) for p in fast)


def test_the_rate_rises_linearly_and_ends_at_its_final_share() -> None:
    rate = build_schedule(OptimizerConfig(lr=2.0, schedule="linear", warmup=0.4, final=0.25), 10)
    assert [rate(step) for step in range(4)] == [0.5, 1.0, 1.5, 2.0]
    assert [rate(step) for step in range(4, 10)] == pytest.approx([1.75, 1.5, 1.25, 1.0, 0.75, 0.5])
    assert rate(99) == 0.5


def test_cosine_and_constant() -> None:
    rate = build_schedule(OptimizerConfig(lr=1.0, schedule="cosine", warmup=0.0, final=0.0), 4)
    expected = [(1 + math.cos(math.pi * share)) / 2 for share in (0.25, 0.5, 0.75, 1.0)]
    assert [rate(step) for step in range(4)] == pytest.approx(expected)
    constant = build_schedule(OptimizerConfig(lr=1.0, schedule="constant", warmup=0.5), 4)
    assert [constant(step) for step in range(4)] == [0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("schedule", ["cosine", "linear", "constant", "wsd"])
@pytest.mark.parametrize("warmup", [0.0, 0.05, 1.0])
def test_no_step_is_without_a_rate_even_in_the_shortest_run(schedule: str, warmup: float) -> None:
    for steps in (1, 2, 3, 50):
        config = OptimizerConfig.model_validate({"lr": 1.0, "schedule": schedule, "warmup": warmup})
        rates = [build_schedule(config, steps)(step) for step in range(steps)]
        assert all(0 < rate <= 1 for rate in rates)


def test_wsd_stays_at_the_peak_and_falls_by_the_root_at_the_end() -> None:
    config = OptimizerConfig(lr=2.0, schedule="wsd", warmup=0.2, decay=0.4, final=0.0)
    rate = build_schedule(config, 10)
    assert [rate(step) for step in range(6)] == [1.0, 2.0, 2.0, 2.0, 2.0, 2.0]
    assert [rate(step) for step in range(6, 10)] == pytest.approx(
        [2 * (1 - math.sqrt(share)) for share in (0.25, 0.5, 0.75, 1.0)]
    )
