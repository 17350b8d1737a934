"""Several adapters on one model, another for every row of a batch.

A batch is served by a model of its own, a value that is made for its rows: the modules on the way to a changed leaf
are copied, all weights are shared, and each changed leaf adds to some rows what their adapter says. So the rows'
adapters are part of the model that a batch holds: they need no way through every layer's arguments, no state that one
request could leave behind for the next, and whoever calls the model, the engine or a beam, need not know. Making one
costs about as much as one small layer's product, when rows come or go; a batch without adapters is served by the model
itself.

Rows are computed together by the base and separately by their adapters, which are thin: rows without one get what
the base says.

Shape suffixes: B rows, T tokens, N rows of one adapter, I inputs, O outputs, R rank, P prefix.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from matura.core.errors import MaturaError
from matura.model.block import View
from matura.model.int4 import Int4Linear
from matura.model.peft import leaves
from matura.model.peft.adapter import Adapter, attach, lora_updates
from matura.model.peft.bottleneck import ACTIVATIONS
from matura.model.peft.prefix import Past, run_after
from matura.model.peft.tuning import added
from matura.model.transformer import Transformer

Delta = Callable[[Tensor, Tensor], Tensor]
"""(what a layer reads [N, T, I], what it writes [N, T, O]) -> what is added [N, T, O]."""


@dataclass(frozen=True)
class Routing:
    """The rows of a batch, and the model that serves them. `columns`: positions before the texts, for prefixes."""

    base: Transformer
    rows: tuple[Adapter | None, ...]
    columns: int
    model: Transformer

    def keep(self, rows: Sequence[int]) -> Routing:
        """Only these rows from now on, in this order."""
        return route(self.base, [self.rows[i] for i in rows], self.columns)


def route(base: Transformer, rows: Sequence[Adapter | None], columns: int = 0) -> Routing:
    """The model for rows with these adapters (None: the base alone). Adapters were checked by `check`."""
    columns = max([columns, *(one.prefix_tokens for one in rows if one is not None)])
    places: dict[int, list[int]] = {}
    for i, adapter in enumerate(rows):
        if adapter is not None:
            places.setdefault(id(adapter), []).append(i)
    found: dict[str, list[tuple[Tensor, Delta]]] = {}
    device = base.embed.weight.device
    for indices in places.values():
        adapter = rows[indices[0]]
        assert adapter is not None
        for name, delta in deltas(adapter).items():
            found.setdefault(name, []).append((torch.tensor(indices, device=device), delta))
    model = base
    if found or columns:
        model = _with_leaves(base, found)
    if columns:
        _set_prefixes(model, rows, columns)
    return Routing(base, tuple(rows), columns, model)


def check(base: Transformer, adapter: Adapter, name: str) -> None:
    """Raises MaturaError when an adapter cannot be one of several on this model, saying what to do."""
    if what := added(base):
        raise MaturaError(f"adapter {name!r}: the model itself has {what}; merge it, or load its parent")
    held = "int4" if any(isinstance(module, Int4Linear) for module in base.modules()) else "float32"
    if adapter.settings.base.format != held:
        raise MaturaError(
            f"adapter {name!r} was trained on weights held as {adapter.settings.base.format}, and this model's are "
            f"{held}: it would answer otherwise than in training; merge it (`matura merge`) and load the result"
        )
    linears = leaves.linears(base)
    if other := [layer for layer in deltas(adapter) if layer not in linears]:
        raise MaturaError(
            f"adapter {name!r} changes {other[0]}, which is no linear layer that rows of a batch can have apart; "
            "merge it (`matura merge`) and load the result"
        )
    known = ("a", "b", "keys", "values")
    if rest := [n for n in adapter.tensors if n.rpartition(".")[2] not in known and ".bottleneck." not in n]:
        raise MaturaError(f"adapter {name!r} trained {rest[0]} as a whole; load it as a model of its own")
    with torch.device("meta"):
        skeleton = Transformer(base.config)
    attach(skeleton, adapter, f"adapter {name!r}")


def deltas(adapter: Adapter) -> dict[str, Delta]:
    """What an adapter adds to each layer."""
    match adapter.settings.method:
        case "lora":
            return {one.name: low_rank(one.a_RI, one.b_OR, one.scale) for one in lora_updates(adapter)}
        case "bottleneck":
            names = {name.partition(".bottleneck.")[0] for name in adapter.tensors}
            activation = ACTIVATIONS[adapter.settings.bottleneck.activation]
            return {name: behind(adapter.tensors, f"{name}.bottleneck", activation) for name in sorted(names)}
        case _:
            return {}


def low_rank(a_RI: Tensor, b_OR: Tensor, scale: float) -> Delta:
    """s (x A^T) B^T."""
    return lambda x, y: (x @ a_RI.T) @ b_OR.T * scale


def behind(tensors: Mapping[str, Tensor], name: str, activation: Callable[[Tensor], Tensor]) -> Delta:
    """W_up f(W_down y)."""
    down, up = ((tensors[f"{name}.{part}.weight"], tensors[f"{name}.{part}.bias"]) for part in ("down", "up"))
    return lambda x, y: F.linear(activation(F.linear(y, *down)), *up)


class _RoutedLinear(nn.Module):
    """A layer whose adapters each add to some rows of the batch."""

    def __init__(self, base: nn.Module, parts: Sequence[tuple[Tensor, Delta]]) -> None:
        super().__init__()
        self.base, self.parts = base, parts

    def forward(self, x_BTI: Tensor) -> Tensor:
        y_BTO: Tensor = self.base(x_BTI)
        for rows_N, delta in self.parts:  # no row has two
            y_BTO.index_add_(0, rows_N, delta(x_BTI[rows_N], y_BTO[rows_N]))
        return y_BTO


class _RoutedStack(nn.Module):
    """A stack whose rows each begin after their own prefix."""

    def __init__(self, base: nn.Module, past: Past) -> None:
        super().__init__()
        self.base, self.past, self.config = base, past, base.config

    def forward(self, x_BTD: Tensor, view: View, **given: object) -> Tensor:
        return run_after(self.past, self.base, x_BTD, view, **given)  # type: ignore[arg-type]


def _with_leaves(model: Transformer, found: Mapping[str, Sequence[tuple[Tensor, Delta]]]) -> Transformer:
    """A model that shares all weights with this one and has other leaves."""
    made: dict[str, nn.Module] = {"": _copied(model)}

    def own(name: str) -> nn.Module:
        if name not in made:
            above, _, last = name.rpartition(".")
            parent = own(above)
            made[name] = _copied(parent._modules[last])
            parent._modules[last] = made[name]
            leaves.unfuse(made[name])
        return made[name]

    for name, parts in found.items():
        above, _, last = name.rpartition(".")
        parent = own(above)
        base = parent._modules[last]
        assert base is not None
        parent._modules[last] = _RoutedLinear(base, parts)
    whole = made[""]
    assert isinstance(whole, Transformer)
    return whole


def _copied(module: nn.Module | None) -> nn.Module:
    """The same module with its own table of children."""
    assert module is not None
    made = copy.copy(module)
    made._modules = dict(module._modules)
    return made


def _set_prefixes(model: Transformer, rows: Sequence[Adapter | None], columns: int) -> None:
    """Begin every row after its prefix; shorter ones stand on the right, next to the text."""
    part = "decoder" if model.decoder is not None else "encoder"
    stack, config = model._modules[part], model.config.last_stack
    like = model.embed.weight
    assert stack is not None
    shape = (config.layers, len(rows), config.attention.kv_heads, columns, config.attention.head_width)
    k_LBGPK, v_LBGPK = (torch.zeros(shape, dtype=like.dtype, device=like.device) for _ in range(2))
    real_BP = torch.zeros(len(rows), columns, dtype=torch.bool, device=like.device)
    for i, adapter in enumerate(rows):
        if adapter is not None and (tokens := adapter.prefix_tokens):
            place = slice(columns - tokens, None)
            k_LBGPK[:, i, :, place] = adapter.tensors[f"{part}.keys"]
            v_LBGPK[:, i, :, place] = adapter.tensors[f"{part}.values"]
            real_BP[i, place] = True
    past = Past(k_LBGPK, v_LBGPK, None if bool(real_BP.all()) else real_BP)
    model._modules[part] = _RoutedStack(stack, past)
