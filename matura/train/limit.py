"""Stopping by the forgetting meter, and keeping the best weights that were within the limit.

The state is JSON and goes into the checkpoint, so a run that was killed stops at the same step with the same weights.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from matura.core.errors import ArtifactError, MaturaError
from matura.core.files import atomic_write
from matura.core.forgetting_settings import Forgetting
from matura.model.peft.leaves import trained

FILE = "within-limit-{step}.safetensors"


class Limit:
    """What follows from each look: go on, keep these weights, stop. Without `settings.limit` nothing ever does."""

    def __init__(self, settings: Forgetting, folder: Path) -> None:
        """Kept weights go into `folder`, a file for each step."""
        self.settings, self.folder = settings, folder
        self.over = 0  # looks in a row above the limit
        self.kept: int | None = None  # the step of the best look within the limit
        self.lowest = math.inf  # the held-out loss there
        self.safe: int | None = None  # what was kept when the last checkpoint was saved

    def look(self, step: int, change: float, heldout: float | None, model: nn.Module) -> bool:
        """Whether to stop after `step`. `change` is that of the meter, a share; `heldout` is the loss on what is to be
        learned: the latest weights within the limit are the best where nothing is held out."""
        limit = self.settings.limit
        if limit is None:
            return False
        if not 100 * change <= limit:  # also when it is no number
            self.over += 1
            return self.over >= self.settings.patience
        self.over = 0
        if heldout is None or heldout < self.lowest:
            self.lowest = self.lowest if heldout is None else heldout
            self.kept = step
            if self.settings.keep == "best":
                _write(self._file(step), model)
                self._remove_all_but(self.safe, self.kept)
        return False

    def finish(self, model: nn.Module) -> int | None:
        """Put the weights that are to come out into the model; their step, or None where there is no limit.

        Raises MaturaError when no look after the start was within it.
        """
        if self.settings.limit is None or self.settings.keep == "last":
            return None
        if not self.kept:
            raise MaturaError(
                f"at every look the model had forgotten more than forgetting.limit={self.settings.limit:g} percent "
                "of general text, so there are no weights to keep. Lower optimizer.lr, look more often "
                "(meter_every), give replay or an anchor (forgetting.kl), or raise the limit"
            )
        _read(self._file(self.kept), model)
        return self.kept

    def state(self) -> dict[str, Any]:
        """As JSON values. What was kept at other steps is not needed once this is in a checkpoint."""
        return {
            "over": self.over,
            "kept": self.kept,
            "lowest": self.lowest if math.isfinite(self.lowest) else None,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go back to what `state` gave."""
        self.over, self.kept = state["over"], state["kept"]
        self.safe = self.kept
        self.lowest = math.inf if state["lowest"] is None else state["lowest"]

    def tidy(self) -> None:
        """Remove kept weights that are no longer the best; for right after a checkpoint was saved."""
        self.safe = self.kept
        self._remove_all_but(self.kept)

    def _remove_all_but(self, *steps: int | None) -> None:
        needed = {self._file(step) for step in steps if step is not None}
        for path in self.folder.glob(FILE.format(step="*")):
            if path not in needed:
                path.unlink()

    def _file(self, step: int) -> Path:
        return self.folder / FILE.format(step=step)


def _write(path: Path, model: nn.Module) -> None:
    tensors = {name: tensor.contiguous() for name, tensor in trained(model).items()}
    with atomic_write(path) as temporary:
        save_file(tensors, temporary)


@torch.no_grad()
def _read(path: Path, model: nn.Module) -> None:
    try:
        with safe_open(path, framework="pt") as file:
            for name, tensor in trained(model).items():
                tensor.copy_(file.get_tensor(name))
    except (SafetensorError, OSError, RuntimeError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}; delete {path.parent} to start this stage again"
        ) from error
