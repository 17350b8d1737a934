"""The attention weights of a forward pass: who looked at whom, in any layer and head.

The model runs as it always does. `attend` is replaced by a function that answers with what the fused kernels answer,
so that no output changes, and beside it computes the weights of the heads that were asked for with `attend_reference`.

Shape suffixes: L chosen layers, H chosen heads, T query tokens, S key tokens; B, G, K as in `model/attention.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from matura.core.errors import MaturaError
from matura.core.files import size_text
from matura.inspect.reading import Inputs, Reading
from matura.model.attention import Attend, Mask, Rule, attend, attend_reference
from matura.model.bias import Bias
from matura.model.config import ModelConfig, StackConfig
from matura.model.transformer import Transformer

LIMIT = 256_000_000
"""Bytes of weights that are kept at most: 270 heads over 512 tokens in float32 are 283 MB."""

Part = Literal["encoder", "decoder", "cross"]
"""An encoder's attention to its text, a decoder's to its own, a decoder's to what the encoder read."""

Place = tuple[Part, int]


@dataclass(frozen=True)
class Attentions:
    """The weights of one part of a model. `layers` and `heads` are numbers of the model, counted from 0; neighbours
    among its heads share `all_heads / kv_heads` to a key/value head."""

    part: Part
    layers: tuple[int, ...]
    heads: tuple[int, ...]
    weights_LHTS: Tensor
    queries: Reading
    keys: Reading
    causal: bool
    all_heads: int
    kv_heads: int


def parts(inputs: Inputs) -> tuple[Part, ...]:
    """The kinds of attention that a forward pass over these inputs has."""
    there = (inputs.source is not None, inputs.target is not None)
    return tuple(
        part for part, has in zip(get_args(Part), (there[0], there[1], all(there)), strict=True) if has
    )


def stack_of(config: ModelConfig, part: Part) -> StackConfig:
    """The stack whose heads these are."""
    stack = config.encoder if part == "encoder" else config.decoder
    assert stack is not None
    return stack


@torch.inference_mode()
def record(
    model: Transformer,
    inputs: Inputs,
    *,
    only: Sequence[Part] | None = None,
    layers: Sequence[int] | None = None,
    heads: Sequence[int] | None = None,
    limit: int = LIMIT,
) -> list[Attentions]:
    """The weights of chosen parts, layers and heads (default: all), computed and kept for these only.

    Weights are in the model's dtype, on the CPU. Raises MaturaError for a layer, head or part that is not there,
    and, before anything is computed, when the weights would take more than `limit` bytes.
    """
    chosen = _chosen_parts(inputs, only)
    wanted = {part: _wanted(stack_of(model.config, part), part, layers, heads) for part in chosen}
    _check_size(inputs, wanted, model.embed.weight.element_size(), limit)
    at = {(part, i): hs for part, (ls, hs) in wanted.items() for i in ls}
    kept = _run(model, inputs, at)
    found = []
    for part, (ls, hs) in wanted.items():
        stack = stack_of(model.config, part)
        queries, keys = _ends(inputs, part)
        weights_LHTS = torch.stack([kept[part, i] for i in ls])
        causal = part != "cross" and stack.causal
        shared = (stack.attention.heads, stack.attention.kv_heads)
        found.append(Attentions(part, ls, hs, weights_LHTS, queries, keys, causal, *shared))
    return found


def _run(model: Transformer, inputs: Inputs, at: Mapping[Place, Sequence[int]]) -> dict[Place, Tensor]:
    """One forward pass; the weights [H, T, S] of the places that were asked for."""
    kept: dict[Place, Tensor] = {}
    device = model.embed.weight.device
    memory_BSD = None
    config = model.config
    if inputs.source is not None and config.encoder is not None:
        places: list[Place] = [("encoder", i) for i in range(config.encoder.layers)]
        ids_1S = torch.tensor([inputs.source.ids], device=device)
        memory_BSD = model.encode(ids_1S, attend=_looking_on(places, at, kept))
    if inputs.target is not None and config.decoder is not None:
        each: tuple[Part, ...] = ("decoder", "cross") if config.decoder.cross else ("decoder",)
        places = [(part, i) for i in range(config.decoder.layers) for part in each]
        ids_1T = torch.tensor([inputs.target.ids], device=device)
        model.decode(ids_1T, memory_BSD=memory_BSD, attend=_looking_on(places, at, kept))
    return kept


def _looking_on(
    places: Iterable[Place], at: Mapping[Place, Sequence[int]], kept: dict[Place, Tensor]
) -> Attend:
    """An `attend` that is called once for each of `places`, in this order, and puts the weights into `kept`."""
    order = iter(places)

    def look_on(
        q_BHTK: Tensor,
        k_BGSK: Tensor,
        v_BGSK: Tensor,
        rule: Rule,
        *,
        mask: Mask = None,
        bias: Bias | None = None,
    ) -> Tensor:
        place = next(order)
        if place in at:
            kept[place] = _weights(q_BHTK, k_BGSK, v_BGSK, rule, list(at[place]), mask, bias)
        return attend(q_BHTK, k_BGSK, v_BGSK, rule, mask=mask, bias=bias)

    return look_on


def _weights(
    q_BHTK: Tensor,
    k_BGSK: Tensor,
    v_BGSK: Tensor,
    rule: Rule,
    heads: list[int],
    mask: Mask,
    bias: Bias | None,
) -> Tensor:
    """[H, T, S] of the first row, for these heads only, each with the key/value head that it shares."""
    share = q_BHTK.shape[1] // k_BGSK.shape[1]
    shared = [head // share for head in heads]
    some: Bias | None = None if bias is None else lambda T, S: bias(T, S)[:, heads]
    _, weights_BHTS = attend_reference(
        q_BHTK[:1, heads], k_BGSK[:1, shared], v_BGSK[:1, shared], rule, mask=mask, bias=some
    )
    return weights_BHTS[0].cpu()


def _chosen_parts(inputs: Inputs, only: Sequence[Part] | None) -> tuple[Part, ...]:
    there = parts(inputs)
    if missing := [part for part in only or () if part not in there]:
        why = " (give a target text)" if inputs.source is not None and inputs.target is None else ""
        raise MaturaError(f"there is no {missing[0]} attention here{why}; there is: {', '.join(there)}")
    return tuple(part for part in there if only is None or part in only)


def _wanted(
    stack: StackConfig, part: Part, layers: Sequence[int] | None, heads: Sequence[int] | None
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return (
        _numbers("layer", layers, stack.layers, part),
        _numbers("head", heads, stack.attention.heads, part),
    )


def _numbers(what: str, given: Sequence[int] | None, count: int, part: Part) -> tuple[int, ...]:
    if given is None:
        return tuple(range(count))
    if bad := [i for i in given if not 0 <= i < count]:
        where = "encoder" if part == "encoder" else "decoder"
        raise MaturaError(f"the {where} has no {what} {bad[0]}: its {what}s are 0 to {count - 1}")
    return tuple(sorted(set(given)))


def _ends(inputs: Inputs, part: Part) -> tuple[Reading, Reading]:
    """Whose tokens look, and whose are looked at."""
    queries = inputs.source if part == "encoder" else inputs.target
    keys = inputs.target if part == "decoder" else inputs.source
    assert queries is not None
    assert keys is not None
    return queries, keys


def _check_size(
    inputs: Inputs,
    wanted: Mapping[Part, tuple[Sequence[int], Sequence[int]]],
    item: int,
    limit: int,
) -> None:
    bytes_, terms = 0, []
    for part, (layers, heads) in wanted.items():
        queries, keys = _ends(inputs, part)
        T, S = len(queries.ids), len(keys.ids)
        bytes_ += len(layers) * len(heads) * T * S * item
        terms.append(f"{part}: {len(layers)} layers x {len(heads)} heads x {T} x {S} tokens x {item} bytes")
    if bytes_ > limit:
        raise MaturaError(
            f"these attention weights would take {size_text(bytes_)}, more than {size_text(limit)} "
            f"({'; '.join(terms)}). Choose fewer layers or heads, shorten the text, or raise the limit."
        )
