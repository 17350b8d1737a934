"""Low-rank updates in other projects' arrangement of a model's layers, and back.

A layer of theirs may hold several of ours (GPT-2's queries, keys and values), have its rows in another order (llama in
GGUF) or be stored as [inputs, outputs]. All of that concerns rows, and the rows of an update W + s B A are those of
B: the same maps as for weights apply to it, a file's A is ours.

Shape suffixes: R rank, I inputs, O outputs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from matura.core.errors import FormatError
from matura.model.config import ModelConfig
from matura.model.families.weights import Entry
from matura.model.peft.lora import Update
from matura.model.transformer import Transformer


@dataclass(frozen=True)
class Layer:
    """A matrix of theirs, without `.weight`; ours that it holds, with the outputs of each; whether it is stored as
    [inputs, outputs]."""

    theirs: str
    also: tuple[str, ...]
    ours: tuple[str, ...]
    outputs: tuple[int, ...]
    entry: Entry
    transposed: bool

    def write(self, parts: Sequence[Tensor]) -> Tensor:
        """Rows of theirs [O, R] from rows of ours."""
        rows = self.entry.write(tuple(parts))
        return rows.t() if self.transposed else rows

    def read(self, rows_OR: Tensor) -> tuple[Tensor, ...]:
        """Rows of ours from rows of theirs."""
        return self.entry.read(rows_OR.t() if self.transposed else rows_OR)


def layers(entries: Iterable[Entry], config: ModelConfig) -> list[Layer]:
    """The matrices of a layout, those that are read in rows (embeddings, positions) among them."""
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in Transformer(config).state_dict().items()}
    found = []
    for entry in entries:
        if not entry.ours or not all(name.endswith(".weight") for name in entry.ours):
            continue
        sizes = [shapes[name] for name in entry.ours]
        if any(len(size) != 2 for size in sizes):
            continue
        outputs = tuple(size[0] for size in sizes)
        narrow = entry.write(tuple(torch.empty(rows, 1, device="meta") for rows in outputs))
        names = [name.removesuffix(".weight") for name in (entry.theirs, *entry.also, *entry.ours)]
        many = 1 + len(entry.also)
        found.append(
            Layer(
                names[0],
                tuple(names[1:many]),
                tuple(names[many:]),
                outputs,
                entry,
                tuple(narrow.shape) == (1, sum(outputs)),
            )
        )
    return found


def to_theirs(layout: Sequence[Layer], updates: Iterable[Update]) -> Iterator[Update]:
    """Every update under the name of their layer. Of a layer that holds several of ours the A's lie under each other,
    and B is zero where an A does not belong: the rank is the sum of theirs, the product the same.

    Raises FormatError for an update of a layer that they do not have.
    """
    ours = {one.name: one for one in updates}
    for layer in layout:
        parts = [(i, ours.pop(name)) for i, name in enumerate(layer.ours) if name in ours]
        if not parts:
            continue
        if len(layer.ours) == 1:
            one = parts[0][1]
            yield Update(layer.theirs, one.a_RI, layer.write((one.b_OR,)), one.scale)
            continue
        ranks = [len(one.a_RI) for _, one in parts]
        scales = {one.scale for _, one in parts}
        scale = scales.pop() if len(scales) == 1 else 1.0
        like = parts[0][1].b_OR
        rows = [like.new_zeros(outputs, sum(ranks)) for outputs in layer.outputs]
        for (i, one), end in zip(parts, torch.tensor(ranks).cumsum(0).tolist(), strict=True):
            rows[i][:, end - len(one.a_RI) : end] = one.b_OR * (one.scale / scale)
        yield Update(layer.theirs, torch.cat([one.a_RI for _, one in parts]), layer.write(rows), scale)
    if ours:
        raise FormatError(f"this layout has no layer for the update of {next(iter(ours))}")


def to_ours(layout: Sequence[Layer], updates: Iterable[Update]) -> Iterator[Update]:
    """Every update under our names. Of a layer that holds several of ours each gets the whole of A.

    Raises FormatError for a layer that the model does not have, and for shapes that do not fit it.
    """
    known = {name: layer for layer in layout for name in (layer.theirs, *layer.also)}
    for one in updates:
        if (layer := known.get(one.name)) is None:
            raise FormatError(f"the model has no layer {one.name}")
        if len(one.b_OR) != sum(layer.outputs) or one.b_OR.shape[1] != len(one.a_RI):
            raise FormatError(
                f"{one.name}: B has shape {tuple(one.b_OR.shape)}, expected {sum(layer.outputs)} rows (outputs) and "
                f"{len(one.a_RI)} columns (the rank)"
            )
        for name, b_OR in zip(layer.ours, layer.read(one.b_OR), strict=True):
            yield Update(name, one.a_RI.clone(), b_OR.contiguous().clone(), one.scale)


def folded(updates: Sequence[Update]) -> list[Update]:
    """The same updates with a scale of 1 and one rank: scales go into B, zeros fill the ranks up.

    Programs that know one scale for a whole file read this rightly.
    """
    rank = max(len(one.a_RI) for one in updates)
    made = []
    for one in updates:
        missing = rank - len(one.a_RI)
        a_RI = torch.cat([one.a_RI, one.a_RI.new_zeros(missing, one.a_RI.shape[1])])
        b_OR = torch.cat([one.b_OR * one.scale, one.b_OR.new_zeros(len(one.b_OR), missing)], 1)
        made.append(Update(one.name, a_RI, b_OR, 1.0))
    return made


def by_last_name(values: Mapping[str, float], known: Iterable[str]) -> dict[str, float]:
    """`values` of layers, under a last name where all layers that are called so have one value, else by whole name."""
    called: dict[str, list[str]] = {}
    for name in known:
        called.setdefault(name.rpartition(".")[2], []).append(name)
    found: dict[str, float] = {}
    for name, value in values.items():
        last = name.rpartition(".")[2]
        alike = all(other in values and values[other] == value for other in called.get(last, [name]))
        found[last if alike else name] = value
    return found


def commonest(values: Iterable[float]) -> float:
    """The value that most layers have; the first of several."""
    return Counter(values).most_common(1)[0][0]
