"""Optimizers and learning-rate schedules."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal

import torch
from pydantic import Field
from torch import nn

from matura.core.config import Config


class OptimizerConfig(Config):
    """AdamW (arXiv:1711.05101) and its learning rate over time."""

    lr: float = Field(1e-3, gt=0, description="Peak learning rate; LoRA wants about ten times that of full tuning")
    schedule: Literal["cosine", "linear", "constant"] = Field("cosine", description="How the rate falls after warm-up")
    warmup: float = Field(0.05, ge=0, le=1, description="Share of the steps in which the rate rises from 0")
    final: float = Field(0.1, ge=0, le=1, description="Rate at the end, as a share of the peak")
    betas: tuple[float, float] = (0.9, 0.95)
    eps: float = Field(1e-8, gt=0)
    weight_decay: float = Field(0.01, ge=0, description="Decay of matrices; vectors and norms never decay")
    clip: float = Field(1.0, gt=0, description="Largest norm of the gradient")


def build_optimizer(model: nn.Module, config: OptimizerConfig) -> torch.optim.AdamW:
    """AdamW over the trainable parameters in two groups: matrices with decay, vectors without."""
    trained = [p for p in model.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trained if p.dim() >= 2], "weight_decay": config.weight_decay},
        {"params": [p for p in trained if p.dim() < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.betas, eps=config.eps)


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
