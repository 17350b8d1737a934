"""Numbers of which size the arithmetic is done in, as a value. Weights and their updates are always float32.

| | products | what it needs |
|---|---|---|
| fp32 | float32 | nothing; the right choice on a CPU without AVX-512 |
| bf16 | bfloat16, by autocast | nothing: its exponents are float32's |
| fp16 | float16, by autocast | a scaler: small gradients would vanish |

(Mixed precision: arXiv:1710.03740.)
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from matura.core.errors import ConfigError
from matura.core.settings import PrecisionName


@dataclass
class Scaler:
    """Keeps float16 gradients in range: the loss is multiplied by `scale`, the gradients are divided by it.

    A step whose gradients overflow is left out and halves the scale; `growth_every` good ones double it
    (arXiv:1710.03740, section 3.2).
    """

    scale: float = 65536.0
    growth_every: int = 2000
    skipped: int = 0
    good: int = 0

    def judge(self, finite: bool) -> bool:
        """Whether the update is made; adapts the scale for the next one."""
        if not finite:
            self.scale, self.good, self.skipped = self.scale / 2, 0, self.skipped + 1
            return False
        self.good += 1
        if self.good == self.growth_every:
            self.scale, self.good = self.scale * 2, 0
        return True

    def state(self) -> dict[str, Any]:
        """Its numbers, as JSON values."""
        return {"scale": self.scale, "skipped": self.skipped, "good": self.good}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.scale, self.skipped, self.good = state["scale"], state["skipped"], state["good"]


@dataclass(frozen=True)
class Precision:
    """The dtype of products on a kind of device, and a scaler for float16."""

    dtype: torch.dtype = torch.float32
    device: str = "cpu"
    scaler: Scaler | None = field(default=None, compare=False)

    @property
    def scale(self) -> float:
        """What the loss is multiplied by before the backward pass."""
        return self.scaler.scale if self.scaler else 1.0

    @property
    def skipped(self) -> int:
        """Updates left out so far."""
        return self.scaler.skipped if self.scaler else 0

    def autocast(self) -> AbstractContextManager[Any]:
        """The context of a forward pass."""
        if self.dtype == torch.float32:
            return nullcontext()
        return torch.autocast(self.device, self.dtype)

    def unscale(self, parameters: Iterable[nn.Parameter]) -> None:
        """Divide the gradients by the scale, in place."""
        if self.scaler:
            for parameter in parameters:
                if parameter.grad is not None:
                    parameter.grad.mul_(1 / self.scaler.scale)

    def accepts(self, finite: bool) -> bool:
        """Whether an update with these gradients is made. Only float16 may leave one out."""
        return self.scaler.judge(finite) if self.scaler else True

    def survives(self, finite: bool) -> bool:
        """Whether training can go on from these gradients: an overflow that a smaller scale may cure is no end."""
        return finite or self.scale > 1


FP32 = Precision()


def choose_precision(name: PrecisionName, device: str = "cpu") -> Precision:
    """The value for a setting; `auto` is bf16 on a GPU that has it, fp16 on an older one, fp32 on a CPU."""
    kind = torch.device(device).type
    if name == "auto":
        name = "fp32" if kind == "cpu" else "bf16" if _has_bf16(kind) else "fp16"
    elif name == "bf16" and not _has_bf16(kind):
        raise ConfigError(f"precision=bf16: this {kind} device has no bfloat16; use precision=fp16 or fp32")
    dtype = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}[name]
    return Precision(dtype, kind, Scaler() if name == "fp16" else None)


def check_device(name: str) -> torch.device:
    """The device of a setting: cpu, cuda or cuda:N. Raises ConfigError when this machine has no such GPU."""
    device = torch.device(name)
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if not count:
            raise ConfigError(
                f"device={name}: torch {torch.__version__} finds no GPU here: set device=cpu, or install a build of "
                "torch for this GPU and its driver"
            )
        if (device.index or 0) >= count:
            raise ConfigError(
                f"device={name}: this machine has {count} GPUs, counted from 0: choose one of them, or start no more "
                "processes than that"
            )
    return device


def _has_bf16(kind: str) -> bool:
    return kind != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)
