"""Checkpoints of many ranks, which resume on another number of them and between kinds of parallelism.

A checkpoint is a directory of safetensors files, written by torch's distributed checkpoint: every rank its own parts.
Weights and the optimizer's slots go by the names of the weights, so who held what does not matter. (One process alone
has `resume.py`: one file.)
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from matura.core.errors import ArtifactError, FormatError
from matura.core.files import read_json, remove, saving, sync, write_json
from matura.train.parts import Stored, read_parts, stored_parts, write_parts
from matura.train.ranks import Ranks

NOTE = "note.json"
PARTIAL, REPLACED = ".partial", ".replaced"
"""Ends of the names of directories: not complete yet; complete, and about to go."""


def save(
    folder: Path,
    step: int,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    position: dict[str, Any],
    ranks: Ranks,
) -> None:
    """Write the state after `step` updates, every rank its own parts, into `folder/step-...`; called by all ranks.

    The files are safetensors with the place of every part. The directory gets its name when it is complete, and only
    then the one before it goes. `position` is JSON that holds for all ranks (rank 0's is kept).
    """
    final = folder / f"step-{step:010d}"
    partial = final.with_suffix(PARTIAL)
    if ranks.rank == 0:
        remove(partial)
    ranks.barrier()
    tensors, slots = _state(model, optimizer)
    tensors |= _random(ranks.rank)
    with saving("a checkpoint", str(folder)):
        write_parts(partial, tensors, ranks)
    ranks.barrier()
    if ranks.rank == 0:
        files = {path.name: path.stat().st_size for path in partial.glob("*.safetensors")}
        note = {"step": step, "position": position, "slots": slots, "world": ranks.world, "files": files}
        write_json(partial / NOTE, note)
        if final.is_dir():  # the same step again, after going back
            remove(final.with_suffix(REPLACED))
            final.rename(final.with_suffix(REPLACED))
        partial.rename(final)
        older = [path for path in folder.glob("step-*") if path != final]
        sync(folder)
        for path in older:
            remove(path)
    ranks.barrier()


def restore(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, ranks: Ranks
) -> tuple[int, dict[str, Any]] | None:
    """Load the newest complete checkpoint of `save` into model, optimizer and random state; (step, position) or None.

    The number of ranks and the kind of parallelism may differ from those that saved; random numbers then start anew
    from the seeds of this run, with a warning. Called by all ranks.
    """
    found = sorted(path for path in folder.glob("step-*") if path.suffix != PARTIAL)
    if not found:
        return None
    path = next(path for path in found if path.stem == found[-1].stem)  # before the one that it replaces
    remedy = f"delete {folder} to start this stage again"
    try:
        note = _read_note(path)
        stored = stored_parts(path)
        wanted = _targets(model, stored)
        if wanted is None:
            raise ArtifactError(f"{path} belongs to another model; {remedy}")
        random = _random(ranks.rank) if note["world"] == ranks.world else {}
        random = {name: state for name, state in random.items() if name in stored}
        read_parts(path, wanted | random, ranks)
    except (FormatError, SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(f"{path} cannot be read: {error}; {remedy}") from error
    _load_slots(model, optimizer, wanted, note["slots"])
    if random:
        _set_random(random, ranks.rank)
    else:
        warnings.warn(
            f"the checkpoint was made by {note['world']} processes, this run has {ranks.world}: it goes on correctly, "
            "but not bit for bit",
            stacklevel=2,
        )
    return note["step"], note["position"]


def _read_note(path: Path) -> dict[str, Any]:
    """What stands beside the tensors. Raises OSError when a file is missing or cut short."""
    note = read_json(path / NOTE, limit=1 << 26, what="a checkpoint's note")
    for name, size in note["files"].items():
        if not (path / name).is_file() or (path / name).stat().st_size != size:
            raise OSError(f"{name} is missing or cut short")
    return note


def _state(
    model: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    """Trained weights and the optimizer's slots by the names of the weights; and the slots that are no tensors."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            tensors[f"model.{name}"] = parameter.detach()
            for key, value in optimizer.state.get(parameter, {}).items():
                if isinstance(value, Tensor):
                    tensors[f"optimizer.{key}.{name}"] = value
                else:
                    plain.setdefault(name, {})[key] = value
    return tensors, plain


def _targets(model: nn.Module, stored: dict[str, Stored]) -> dict[str, Tensor] | None:
    """Tensors to load into, laid out as this run lays out its weights; None when the weights are others."""
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    shapes = {name: info.shape for name, info in stored.items() if name.startswith("model.")}
    if shapes != {f"model.{name}": p.shape for name, p in trained.items()}:
        return None
    wanted = {f"model.{name}": p.detach() for name, p in trained.items()}
    for full, info in stored.items():
        if full.startswith("optimizer."):
            _, _, name = full.split(".", 2)
            like = trained[name].detach()
            same = info.shape == like.shape  # cut as its weight is; otherwise a number that every rank has
            wanted[full] = (
                torch.zeros_like(like, dtype=info.dtype)
                if same
                else torch.zeros(info.shape, dtype=info.dtype)
            )
    return wanted


def _load_slots(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loaded: dict[str, Tensor],
    plain: dict[str, dict[str, Any]],
) -> None:
    """Give the optimizer its slots by its own way, which knows where each belongs."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    slots = {name: dict(values) for name, values in plain.items()}
    for full, tensor in loaded.items():
        if full.startswith("optimizer."):
            _, key, name = full.split(".", 2)
            slots.setdefault(name, {})[key] = tensor
    state = optimizer.state_dict()
    order = [names[p] for group in optimizer.param_groups for p in group["params"]]
    numbers = [i for group in state["param_groups"] for i in group["params"]]
    state["state"] = {i: slots[name] for i, name in zip(numbers, order, strict=True) if name in slots}
    optimizer.load_state_dict(state)


def _random(rank: int) -> dict[str, Tensor]:
    """The states of this rank's random generators."""
    states = {f"random.cpu.{rank}": torch.get_rng_state()}
    if torch.cuda.is_available():
        states[f"random.cuda.{rank}"] = torch.cuda.get_rng_state()
    return states


def _set_random(states: dict[str, Tensor], rank: int) -> None:
    torch.set_rng_state(states[f"random.cpu.{rank}"])
    if (state := states.get(f"random.cuda.{rank}")) is not None:
        torch.cuda.set_rng_state(state)
