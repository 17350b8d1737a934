"""LoRA: a trained low-rank update beside every frozen linear layer (arXiv:2106.09685).

    y = x (W + s B A)^T        A [R, I], B [O, R], s = alpha / R  (rsLoRA: alpha / sqrt(R), arXiv:2312.03732)

A training step adds s B A to W first and then multiplies once, forward and backward. Adding costs 2 R O I FLOPs once
a step, where the usual y = x W^T + s (x A^T) B^T costs two thin products and an addition over every token. The two are
equal in exact arithmetic; `LoraLinear.forward_reference` is the second, and a test compares them. With dropout, which
only the update's input has, the second is what is computed.

Layers that read one x, as q, k and v do, are one node of the graph: their gradients for x are summed as the products
are made, and the thin products with x are one.

An embedding or an output matrix [V, D] is read in rows as well as multiplied with, so its update W + s B A is a
parametrization of the tensor: whoever reads it, the loss in chunks too, gets the sum. Where embedding and output matrix
are one, they stay one.

Shape suffixes: N any leading dimensions (tokens), I inputs, O outputs, R rank.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from matura.core.errors import ConfigError
from matura.core.peft_settings import LoraConfig, unmatched
from matura.model.heads import LanguageHead
from matura.model.int4 import Dense, Int4Linear
from matura.model.layers import Embedding, Linear
from matura.model.peft import leaves
from matura.model.peft.leaves import Model

Base = nn.Linear | Int4Linear


class _Frozen(NamedTuple):
    """What a layer has beside its A and B: s, and W or the packed parts that `dense` makes it from."""

    scale: float
    parts: Sequence[Tensor]
    dense: Dense | None

    def plus(self, a_RI: Tensor, b_OR: Tensor) -> Tensor:
        """W + s B A."""
        if self.dense is None:
            return torch.addmm(self.parts[0], b_OR, a_RI, alpha=self.scale)
        return self.dense(*self.parts).to(a_RI.dtype).addmm_(b_OR, a_RI, alpha=self.scale)

    def worth_keeping(self, sum_OI: Tensor, x_NI: Tensor) -> bool:
        """Whether the sum is no larger than what the layer reads and writes, which waits for backward too. Who packed W
        wants the memory."""
        outputs, inputs = sum_OI.shape
        tokens = x_NI.numel() // inputs
        return self.dense is None and sum_OI.numel() <= tokens * (inputs + outputs)


class _UpdatedLinears(torch.autograd.Function):
    """x (W + s B A)^T of all layers that read x, with gradients for x, A and B only. `factors` are every A, then every
    B. A large sum is rebuilt in backward instead of kept."""

    @staticmethod
    def forward(  # type: ignore[no-untyped-def]
        ctx, x_NI: Tensor, frozen: Sequence[_Frozen], *factors: Tensor
    ) -> tuple[Tensor, ...]:
        outs, kept = [], []
        for one, a_RI, b_OR in zip(frozen, *_halves(factors), strict=True):
            sum_OI = one.plus(a_RI, b_OR)
            outs.append(F.linear(x_NI, sum_OI))
            wanted = ctx.needs_input_grad[0] and one.worth_keeping(sum_OI, x_NI)
            kept.append(sum_OI if wanted else None)
        ctx.save_for_backward(x_NI, *factors, *kept)
        ctx.frozen = frozen  # constants: no gradient, and none of them is made here
        return tuple(outs)

    @staticmethod
    def backward(ctx, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[no-untyped-def]
        frozen, (x_NI, *saved) = ctx.frozen, ctx.saved_tensors
        (as_RI, bs_OR), kept = _halves(saved[: 2 * len(frozen)]), saved[2 * len(frozen) :]
        # The rank is the first dimension of every thin product: the other orders are up to 3 times slower.
        flat_NI, ranks = x_NI.flatten(0, -2), [len(a_RI) for a_RI in as_RI]
        down_RN = (torch.cat(as_RI) @ flat_NI.T).split(ranks)
        up_RN, dbs_OR, dx_NI = [], [], None
        for i, grad in enumerate(grads):
            grad_NO = grad.flatten(0, -2)  # its readers stand together, while it is in the cache
            up_RN.append((bs_OR[i].T * frozen[i].scale).contiguous() @ grad_NO.T)
            dbs_OR.append(((down_RN[i] * frozen[i].scale) @ grad_NO).T)
            if ctx.needs_input_grad[0]:
                sum_OI = frozen[i].plus(as_RI[i], bs_OR[i]) if kept[i] is None else kept[i]
                dx_NI = grad_NO @ sum_OI if dx_NI is None else dx_NI.addmm_(grad_NO, sum_OI)
        das_RI = (torch.cat(up_RN) @ flat_NI).split(ranks)
        return (None if dx_NI is None else dx_NI.view_as(x_NI), None, *das_RI, *dbs_OR)


def _halves(tensors: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    half = len(tensors) // 2
    return list(tensors[:half]), list(tensors[half:])


class LoraLinear(nn.Module):
    """A frozen linear layer with a trained update. B starts at zero, so the model starts as its parent."""

    def __init__(
        self,
        base: Base,
        rank: int,
        scale: float,
        *,
        dropout: float = 0.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        self.scale, self.dropout = scale, dropout
        like = base.scale_OJ.float() if isinstance(base, Int4Linear) else base.weight
        self.a, self.b = _start(base.out_features, base.in_features, rank, like, generator)

    def forward(self, x_NI: Tensor) -> Tensor:
        if self.dropout and self.training:
            return self._update(F.dropout(x_NI, self.dropout)) + self.base(x_NI)
        return _products([self], x_NI)[0]

    @staticmethod
    def together(layers: Sequence[LoraLinear], x_NI: Tensor) -> Sequence[Tensor]:
        """What each of several layers makes of one input."""
        if any(layer.dropout and layer.training for layer in layers):
            return [layer(x_NI) for layer in layers]
        return _products(layers, x_NI)

    def forward_reference(self, x_NI: Tensor) -> Tensor:
        """x W^T + s (x A^T) B^T, as in the paper."""
        return self.base(x_NI) + self._update(x_NI)

    def _update(self, x_NI: Tensor) -> Tensor:
        return self.scale * (x_NI @ self.a.T) @ self.b.T

    @property
    def frozen(self) -> _Frozen:
        """What is not trained, and how much of the update counts."""
        if isinstance(self.base, Int4Linear):
            return _Frozen(self.scale, self.base.parts, self.base.dense_from)
        return _Frozen(self.scale, (self.base.weight,), None)

    @torch.no_grad()
    def merged(self) -> Linear:
        """The plain linear layer with the update added into a copy of its weight, which is what it was trained on."""
        bias = self.base.bias is not None
        linear = Linear(self.base.in_features, self.base.out_features, bias, device="meta")
        linear.weight = nn.Parameter(self.frozen.plus(self.a, self.b))
        if bias:
            linear.bias = self.base.bias
        return linear


def _products(layers: Sequence[LoraLinear], x_NI: Tensor) -> list[Tensor]:
    factors = [layer.a for layer in layers] + [layer.b for layer in layers]
    outs = _UpdatedLinears.apply(x_NI, [layer.frozen for layer in layers], *factors)
    biases = [layer.base.bias for layer in layers]
    return [y_NO if bias is None else y_NO + bias for y_NO, bias in zip(outs, biases, strict=True)]


class LoraTable(nn.Module):
    """The update of a table [V, D]: a parametrization of the tensor."""

    def __init__(self, weight_VD: Tensor, rank: int, scale: float, generator: torch.Generator | None) -> None:
        super().__init__()
        self.scale = scale
        V, D = weight_VD.shape
        self.a, self.b = _start(V, D, rank, weight_VD, generator)

    def forward(self, weight_VD: Tensor) -> Tensor:
        return torch.addmm(weight_VD, self.b, self.a, alpha=self.scale)


def _start(
    outputs: int, inputs: int, rank: int, like: Tensor, generator: torch.Generator | None
) -> tuple[nn.Parameter, nn.Parameter]:
    a_RI = torch.empty(rank, inputs, dtype=torch.float32)
    bound = 1 / math.sqrt(inputs)  # kaiming_uniform(a=sqrt(5)), as the reference implementation
    a_RI.uniform_(-bound, bound, generator=generator)
    b_OR = torch.zeros(outputs, rank, dtype=like.dtype, device=like.device)
    return nn.Parameter(a_RI.to(like.device, like.dtype)), nn.Parameter(b_OR)


def apply_lora(model: Model, config: LoraConfig, seed: int = 0) -> Model:
    """Freeze `model` and put an update beside every target layer; the same seed gives the same start.

    Raises ConfigError when a target, or a layer with a rank or alpha of its own, is none of the model's; the message
    lists those there are.
    """
    generator = torch.Generator().manual_seed(seed)
    tables = _tables(model)
    if "head" in config.targets and "head" not in tables and "embed" in tables:
        raise ConfigError("lora.targets: this model's output matrix is its embedding; `embed` updates both")
    chosen = leaves.targets(model, config.targets, list(tables), "lora.targets")
    for setting, own in (("ranks", config.ranks), ("alphas", config.alphas)):
        if strange := unmatched(own, chosen):
            raise ConfigError(
                f"lora.{setting}: {', '.join(map(repr, strange))} names none of the {len(chosen)} layers that "
                f"targets choose, such as {chosen[0]}"
            )
    model.requires_grad_(False)
    for name in chosen:
        rank, scale = config.of(name)
        if name in tables:
            table = tables[name]
            assert isinstance(table.weight, Tensor)
            update = LoraTable(table.weight, rank, scale, generator)
            parametrize.register_parametrization(table, "weight", update)
            continue

        def beside(base: nn.Module, rank: int = rank, scale: float = scale) -> nn.Module:
            assert isinstance(base, nn.Linear | Int4Linear)
            return LoraLinear(base, rank, scale, dropout=config.dropout, generator=generator)

        leaves.swap(model, name, beside)
    return model


def _tables(model: nn.Module) -> dict[str, nn.Module]:
    """The embedding of tokens, and an output matrix of its own."""
    found: dict[str, nn.Module] = {}
    embed, head = getattr(model, "embed", None), getattr(model, "head", None)
    if isinstance(embed, Embedding):
        found["embed"] = embed
    if isinstance(head, LanguageHead) and head.weight is not None:
        found["head"] = head
    return found


def merge_lora(model: Model) -> Model:
    """Replace every layer with an update by the plain layer it equals."""
    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLinear):
            leaves.put(model, name, module.merged())
    for table in _tables(model).values():
        if parametrize.is_parametrized(table, "weight"):
            parametrize.remove_parametrizations(table, "weight", leave_parametrized=True)
    return model


class Update(NamedTuple):
    """What is added to the weight of one layer: scale * b @ a."""

    name: str
    a_RI: Tensor
    b_OR: Tensor
    scale: float


def updates(model: nn.Module) -> Iterator[Update]:
    """Every update of the model, by the name of its layer."""
    for name, module in model.named_modules():
        if isinstance(module, LoraLinear | LoraTable):
            layer = name.partition(".parametrizations.")[0]
            yield Update(layer, module.a.detach(), module.b.detach(), module.scale)


def lora_state(model: nn.Module) -> dict[str, Tensor]:
    """The updates' tensors only: `<layer>.a` and `<layer>.b`."""
    return {
        f"{one.name}.{part}": tensor
        for one in updates(model)
        for part, tensor in (("a", one.a_RI), ("b", one.b_OR))
    }
