"""Updates that would harm: what to do when a gradient is far out of line, or the loss is not a number.

A single bad batch can throw a model back by thousands of updates. Such an update is left out; when leaving out does not
help, training goes back to its last checkpoint, past the batches in between, with a lower learning rate (as in PaLM,
arXiv:2204.02311, section 5.1).
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from typing import Any

from matura.core.pretrain_settings import Spikes


class Unstable(Exception):  # noqa: N818 (named for what happened)
    """Too many updates in a row were out of line."""


class SpikeGuard:
    """Judges every update by the median gradient norm of the recent ones. Its position is part of a checkpoint."""

    def __init__(self, settings: Spikes, left_out: int = 0) -> None:
        self.settings = settings
        self._norms: deque[float] = deque(maxlen=settings.window)
        self._in_row = 0
        self.left_out = left_out

    def accepts(self, loss: float, norm: float) -> bool:
        """Whether the update may be made. Raises Unstable after more than `patience` refusals in a row."""
        if self._in_line(loss, norm):
            self._norms.append(norm)
            self._in_row = 0
            return True
        self._in_row += 1
        self.left_out += 1
        if self._in_row > self.settings.patience:
            raise Unstable(f"{self._in_row} updates in a row were out of line (loss {loss:g}, norm {norm:g})")
        return False

    def _in_line(self, loss: float, norm: float) -> bool:
        if not (math.isfinite(loss) and math.isfinite(norm)):
            return False
        if len(self._norms) < self.settings.window // 2:
            return True
        return norm <= self.settings.factor * statistics.median(self._norms)

    def state(self) -> dict[str, Any]:
        """Its memory, as JSON values."""
        return {"norms": list(self._norms), "in_row": self._in_row, "left_out": self.left_out}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._norms = deque(state["norms"], maxlen=self.settings.window)
        self._in_row, self.left_out = state["in_row"], state["left_out"]
