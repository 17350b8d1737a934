"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import nn

from matura.core.settings import OptimizerConfig


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters in two groups: matrices with decay, vectors without.

    An update is one pass over memory (`fused`), not one for each of its ten operations.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [g for g in groups if g["params"]], lr=config.lr, betas=config.betas, eps=config.eps, fused=True
    )


def build_schedule(config: OptimizerConfig, steps: int) -> Callable[[int], float]:
    """step (from 0) -> learning rate. Warm-up is linear and never zero; the last step reaches the final rate."""
    warmup = round(config.warmup * steps)

    def rate(step: int) -> float:
        if step < warmup:
            return config.lr * (step + 1) / warmup
        if config.schedule == "constant":
            return config.lr
        progress = min(1.0, (step - warmup + 1) / max(1, steps - warmup))
        falling = 1 - progress if config.schedule == "linear" else (1 + math.cos(math.pi * progress)) / 2
        return config.lr * (config.final + (1 - config.final) * falling)

    return rate
