"""Exact resumption: weights, optimizer, data position and random state in one checkpoint.

A checkpoint is one file, replaced atomically, so a kill leaves the old one or the new one. A run that resumes goes
on bit for bit as if it had never stopped: same build, same number of threads, deterministic algorithms.
"""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from matura.core.errors import ArtifactError
from matura.core.files import atomic_write

FILE = "checkpoint.safetensors"


@contextmanager
def deterministic(seed: int) -> Iterator[None]:
    """Deterministic algorithms and a seeded global generator, for the time of a run.

    New memory is not filled first, as PyTorch does by default with such algorithms: it costs a pass over every new
    tensor, and only who reads what nobody wrote could tell the difference.
    """
    memory: Any = torch.utils.deterministic
    before = torch.are_deterministic_algorithms_enabled(), memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True)
    memory.fill_uninitialized_memory = False
    torch.manual_seed(seed)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        memory.fill_uninitialized_memory = before[1]


def save(
    folder: Path, step: int, model: nn.Module, optimizer: torch.optim.Optimizer, position: dict[str, Any]
) -> None:
    """Write the state after `step` updates; `position` is JSON (the batches' `state()`, meters, ...)."""
    tensors: dict[str, Tensor] = {
        f"model.{n}": p.detach() for n, p in model.named_parameters() if p.requires_grad
    }
    slots: dict[str, dict[str, Any]] = {}
    for i, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{i}.{key}"] = value
            else:
                slots.setdefault(str(i), {})[key] = value
    tensors["random"] = torch.get_rng_state()
    if (gpu := _gpu(model)) is not None:
        tensors["random.cuda"] = torch.cuda.get_rng_state(gpu)  # dropout draws there
    note = {"step": step, "position": position, "slots": slots, "threads": torch.get_num_threads()}
    with atomic_write(folder / FILE) as temporary:
        save_file({n: t.contiguous() for n, t in tensors.items()}, temporary, {"note": json.dumps(note)})


def restore(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, dict[str, Any]] | None:
    """Load the newest checkpoint into model, optimizer and the random state; (step, position), or None without one.

    Warns when the number of threads differs: sums are then split differently and the last bits may differ.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as file:
            note = json.loads(file.metadata()["note"])
            stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{path} cannot be read: {error}; delete {folder} to start this stage again"
        ) from error
    trained = {f"model.{n}": p for n, p in model.named_parameters() if p.requires_grad}
    shapes = {name: tensor.shape for name, tensor in stored.items() if name.startswith("model.")}
    if shapes != {name: parameter.shape for name, parameter in trained.items()}:
        raise ArtifactError(f"{path} belongs to another model; delete {folder} to start this stage again")
    if note["threads"] != torch.get_num_threads():
        warnings.warn(
            f"the checkpoint was made with {note['threads']} threads, this run has {torch.get_num_threads()}: "
            "it goes on correctly, but not bit for bit",
            stacklevel=2,
        )
    with torch.no_grad():
        for name, parameter in trained.items():
            parameter.copy_(stored[name])
    state = optimizer.state_dict()
    state["state"] = _slots(stored, note["slots"])
    optimizer.load_state_dict(state)
    torch.set_rng_state(stored["random"])
    if (gpu := _gpu(model)) is not None and "random.cuda" in stored:
        torch.cuda.set_rng_state(stored["random.cuda"], gpu)
    return note["step"], note["position"]


def _gpu(model: nn.Module) -> torch.device | None:
    """The GPU that the model is on, if it is on one."""
    device = next(model.parameters()).device
    return device if device.type == "cuda" else None


def _slots(stored: dict[str, Tensor], plain: dict[str, dict[str, Any]]) -> dict[int, dict[str, Any]]:
    slots: dict[int, dict[str, Any]] = {int(i): dict(values) for i, values in plain.items()}
    for name, tensor in stored.items():
        if name.startswith("optimizer."):
            _, i, key = name.split(".")
            slots.setdefault(int(i), {})[key] = tensor.clone()
    return slots
