"""How a tensor of another project's checkpoint holds ours, in both directions.

Every entry is a pair of functions that undo each other, so that what is read can be written back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]


@dataclass(frozen=True)
class Entry:
    """One of their tensors, our names for what it holds, and the way there and back.

    `read` gets their tensor and gives ours in the order of `ours`; it may be called with a tensor of any shape (the
    shapes of the result are compared with the settings afterwards) and must then give what it can or raise
    RuntimeError or ValueError. `also` are other names of the tensor, which older or partial checkpoints use.
    """

    theirs: str
    ours: tuple[str, ...]
    read: Callable[[Tensor], Tensors]
    write: Callable[[Tensors], Tensor]
    also: tuple[str, ...] = ()

    def found(self, stored: Collection[str]) -> Entry:
        """This entry under the first of its names that is stored."""
        names = (self.theirs, *self.also)
        return replace(self, theirs=next((name for name in names if name in stored), self.theirs))


def same(theirs: str, ours: str) -> Entry:
    """The tensor as it is."""
    return Entry(theirs, (ours,), lambda t: (t,), lambda ts: ts[0])


def row(theirs: str, ours: str) -> Entry:
    """A vector stored as a matrix of one row (Marian's output bias)."""
    return Entry(theirs, (ours,), lambda t: (t.squeeze(0),), lambda ts: ts[0][None])


def computed(theirs: str, make: Callable[[], Tensor]) -> Entry:
    """Holds nothing of ours, but what others expect to find beside it."""
    return Entry(theirs, (), lambda t: (), lambda ts: make())


def transposed(theirs: str, ours: str) -> Entry:
    """Stored as [inputs, outputs] (GPT-2's Conv1D)."""
    return Entry(theirs, (ours,), lambda t: (t.t(),), lambda ts: ts[0].t())


def shifted(theirs: str, ours: str) -> Entry:
    """Stored as the difference from one (Gemma's norms)."""
    return Entry(theirs, (ours,), lambda t: (t + 1,), lambda ts: ts[0] - 1)


def stacked(theirs: str, ours: Sequence[str], rows: Sequence[int], *, transpose: bool = False) -> Entry:
    """Several of ours under each other, `rows` of each; with `transpose` side by side, as [inputs, outputs]."""

    def read(tensor: Tensor) -> Tensors:
        return (tensor.t() if transpose else tensor).split(list(rows))

    def write(tensors: Tensors) -> Tensor:
        whole = torch.cat(tensors)
        return whole.t() if transpose else whole

    return Entry(theirs, tuple(ours), read, write)


def after_rows(theirs: str, ours: str, skip: int) -> Entry:
    """Theirs begins with `skip` rows that are never used (RoBERTa's positions); they are written as zeros."""

    def write(tensors: Tensors) -> Tensor:
        return torch.cat([tensors[0].new_zeros(skip, *tensors[0].shape[1:]), tensors[0]])

    return Entry(theirs, (ours,), lambda t: (t[skip:],), write)


def interleaved(theirs: str, ours: str, heads: int) -> Entry:
    """Rows of every head in the order of pairs (llama in GGUF); ours is half-split, as in Hugging Face."""

    def split(rows: int) -> tuple[int, int]:
        return heads, rows // heads // 2

    def read(tensor: Tensor) -> Tensors:
        return (tensor.unflatten(0, (*split(len(tensor)), 2)).transpose(1, 2).reshape(tensor.shape),)

    def write(tensors: Tensors) -> Tensor:
        (tensor,) = tensors
        H, half = split(len(tensor))
        return tensor.unflatten(0, (H, 2, half)).transpose(1, 2).reshape(tensor.shape)

    return Entry(theirs, (ours,), read, write)
