"""What the reference makes of the answers: read once, and kept for later runs of the same stage on the same data.

The reference never changes, so its log-probabilities are numbers, not passes. Answers are read in rows that follow from
the data alone: a run that was killed on the way goes on with the same bits.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol, TypeVar

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from matura.align.sequences import Prompted, pack_answers, sequence_logprobs
from matura.core.errors import MaturaError
from matura.core.files import atomic_write
from matura.core.grouping import neighbours
from matura.core.metrics import progress
from matura.model.transformer import Transformer
from matura.train.watch import looking

Sized = TypeVar("Sized", bound="HasSize")

ROW = 2048
"""Tokens read at a time."""
SAVE_EVERY = 16
"""Rows between savings."""


class HasSize(Protocol):
    """Something that runs through the model."""

    @property
    def size(self) -> int:
        """Its tokens."""


def key(identity: str, prompted: Sequence[Prompted]) -> str:
    """A name for what a model, `identity`, makes of these ids with this build and number of threads."""
    told = [identity, torch.__version__, str(torch.get_num_threads()), str(ROW)]
    digest = hashlib.sha256(json.dumps(told).encode())
    for one in prompted:
        digest.update(json.dumps([one.prompt, one.answers]).encode())
    return digest.hexdigest()


def logprobs(
    reference: Transformer, prompted: Sequence[Prompted], identity: str, folder: Path
) -> list[tuple[float, ...]]:
    """log p of every answer of every prompt under the reference, in their order.

    They are saved in `folder`, and what was saved there or in a folder beside it (an earlier run with another beta) is
    not read again. `identity` is the reference's: its artifact's id, and how its weights are held. A file that is
    damaged counts as none. Raises MaturaError when the reference makes no finite number of an answer.
    """
    name = f"reference-{key(identity, prompted)[:32]}.safetensors"
    answers = sum(len(one.answers) for one in prompted)
    places = [folder / name, *sorted(folder.parent.glob(f"*/{name}"))]
    found = max((_read(place, answers) for place in places), key=len)
    done = len(found)
    parts, saved = [found], done
    todo = list(rows(prompted))
    total = sum(one.size for row in todo for one in row)
    with progress("reference", total) as bar, looking(reference):
        at = 0
        for number, row in enumerate(todo, 1):
            at += sum(len(one.answers) for one in row)
            if at > done:  # it was saved between rows
                parts.append(sequence_logprobs(reference, pack_answers(row)).logprobs_S.float())
            bar.advance(sum(one.size for one in row))
            if at > saved and (number % SAVE_EVERY == 0 or number == len(todo)):
                parts, saved = [torch.cat(parts)], at
                _write(folder / name, parts[0])
    if done == answers:
        _write(folder / name, found)
    whole = torch.cat(parts)
    if not bool(torch.isfinite(whole).all()):
        raise MaturaError(
            "the reference finds no number for some answers: its weights hold values that are not finite"
        )
    values = whole.tolist()
    out, start = [], 0
    for one in prompted:
        out.append(tuple(values[start : start + len(one.answers)]))
        start += len(one.answers)
    return out


def rows(examples: Sequence[Sized]) -> Iterator[list[Sized]]:
    """Neighbours that fit into a row together."""
    return neighbours(examples, ROW, lambda one: one.size)


def _read(path: Path, most: int) -> torch.Tensor:
    """What is saved of `most` numbers; nothing where there is no file, or one that holds no such numbers."""
    try:
        found = load_file(path).get("logprobs")
    except (OSError, SafetensorError):
        return torch.empty(0)
    if found is None or found.dtype != torch.float32 or found.dim() != 1 or len(found) > most:
        return torch.empty(0)
    return found if bool(torch.isfinite(found).all()) else torch.empty(0)


def _write(path: Path, values: torch.Tensor) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        save_file({"logprobs": values.contiguous()}, temporary)
