"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from matura.core.settings import OptimizerConfig
from matura.model.block import Block
from matura.train.muon import Muon
from matura.train.ranks import ALONE, Ranks


def build_optimizer(model: nn.Module, config: OptimizerConfig, ranks: Ranks = ALONE) -> torch.optim.Optimizer:
    """The optimizer over the trainable parameters: matrices with decay, vectors without.

    With `kind="muon"` the matrices inside the blocks are updated by Muon; embeddings and the output layer, whose rows
    belong to single tokens, by AdamW; `ranks` share Muon's work. A model that is cut over ranks gets AdamW's plain
    form, since the fused one knows one grid of ranks at a time.
    """
    matrices, tables, vectors = _kinds(model)
    settings: dict[str, Any] = {"lr": config.lr, "betas": config.betas, "eps": config.eps}
    if config.kind == "adamw":
        plain: list[dict[str, Any]] = [
            {"params": [p for p in model.parameters() if p.requires_grad and p.dim() >= 2]},
            {"params": vectors, "weight_decay": 0.0},
        ]
        # Fused is one pass over memory for an update, not one for each of its ten operations.
        settings["fused"] = all(type(p.detach()) is Tensor for p in model.parameters())
        return torch.optim.AdamW(_filled(plain), weight_decay=config.weight_decay, **settings)
    groups: list[dict[str, Any]] = [
        {"params": matrices, "orthogonal": True},
        {"params": tables},
        {"params": vectors, "weight_decay": 0.0},
    ]
    return Muon(
        _filled(groups),
        weight_decay=config.weight_decay,
        momentum=config.momentum,
        ranks=ranks,
        **settings,
    )


def _kinds(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter], list[nn.Parameter]]:
    """What is trained: matrices inside the blocks, other tables and matrices, vectors."""
    inside = {id(p) for module in model.modules() if isinstance(module, Block) for p in module.parameters()}
    trained = [p for p in model.parameters() if p.requires_grad]
    matrices = [p for p in trained if p.dim() == 2 and id(p) in inside]
    tables = [p for p in trained if p.dim() >= 2 and id(p) not in inside]
    return matrices, tables, [p for p in trained if p.dim() < 2]


def _filled(groups: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [group for group in groups if group["params"]]


def scale_rate(optimizer: torch.optim.Optimizer, parameters: Iterable[Tensor], factor: float) -> None:
    """Let these parameters learn at `factor` times the rate of the others: they get groups of their own."""
    chosen = {id(parameter) for parameter in parameters}
    for group in list(optimizer.param_groups):
        own = [parameter for parameter in group["params"] if id(parameter) in chosen]
        if not own:
            continue
        rest = [parameter for parameter in group["params"] if id(parameter) not in chosen]
        scale = factor * group.get("lr_scale", 1.0)
        if rest:
            group["params"] = rest
            optimizer.add_param_group({**group, "params": own, "lr_scale": scale})
        else:
            group["lr_scale"] = scale


def build_schedule(config: OptimizerConfig, steps: int) -> Callable[[int], float]:
    """step (from 0) -> learning rate. Warm-up is linear and never zero; the last step reaches the final rate.

    wsd (warm-up, stable, decay; arXiv:2404.06395) falls by 1 - sqrt(progress) (arXiv:2405.18392) in the last `decay`
    of the steps.
    """
    warmup = round(config.warmup * steps)
    begin = max(warmup, steps - round(config.decay * steps)) if config.schedule == "wsd" else warmup

    def rate(step: int) -> float:
        if step < warmup:
            return config.lr * (step + 1) / warmup
        if config.schedule == "constant" or step < begin:
            return config.lr
        progress = min(1.0, (step - begin + 1) / max(1, steps - begin))
        return config.lr * (config.final + (1 - config.final) * _left(config.schedule, progress))

    return rate


def _left(schedule: str, progress: float) -> float:
    """What is left of the way from the peak to the final rate."""
    match schedule:
        case "linear":
            return 1 - progress
        case "wsd":
            return 1 - math.sqrt(progress)
        case _:
            return (1 + math.cos(math.pi * progress)) / 2
