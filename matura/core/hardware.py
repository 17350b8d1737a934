"""What accelerators can do and cost, and how fast this machine multiplies: the numbers a plan is made of."""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass

from matura.core.errors import ConfigError

PRICES = "MATURA_PRICES"
"""Environment variable with dollars an hour, such as "h100=2.10 a100=1.20": prices change, results do not."""


@dataclass(frozen=True)
class Device:
    """`flops`: dense bfloat16 products with float32 sums, a second; `memory` in bytes; `price` in dollars an hour (an
    example); `utilisation`: the share of `flops` that training of a dense model usually reaches."""

    name: str
    flops: float
    memory: int
    price: float
    utilisation: float = 0.40


DEVICES = (
    Device("rtx4090", 165e12, 24 << 30, 0.40),
    Device("l4", 121e12, 24 << 30, 0.70),
    Device("a100", 312e12, 80 << 30, 1.50),
    Device("h100", 989e12, 80 << 30, 2.50),
    Device("h200", 989e12, 141 << 30, 3.50),
    Device("b200", 2250e12, 180 << 30, 5.50),
    Device("mi300x", 1307e12, 192 << 30, 2.50, utilisation=0.35),
)
"""From the makers' data sheets (dense figures, not those with sparsity)."""


def prices(text: str | None = None) -> dict[str, float]:
    """Dollars an hour by device; `text` (None: the environment's MATURA_PRICES) overrides the examples.

    Raises ConfigError for a name or number that is none.
    """
    found = {device.name: device.price for device in DEVICES}
    for item in (os.environ.get(PRICES, "") if text is None else text).replace(",", " ").split():
        name, _, value = item.partition("=")
        try:
            price = float(value)
        except ValueError:
            price = -1.0
        if name not in found or not price >= 0:
            raise ConfigError(
                f"{PRICES}: expected NAME=DOLLARS such as h100=2.10, got {item!r} (known: {', '.join(found)})"
            )
        found[name] = price
    return found


@functools.cache
def matrix_speed(size: int = 768, seconds: float = 0.2) -> float:
    """Float32 multiplications and additions a second in products of `size` x `size` matrices, by numpy: the most
    that training on this processor can reach. Without torch, so that a plan is quick; measured once a process."""
    import numpy as np

    a = np.full((size, size), 0.5, dtype=np.float32)
    best = 0.0
    np.matmul(a, a)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        np.matmul(a, a)
        best = max(best, 2 * size**3 / (time.perf_counter() - began))
    return best
