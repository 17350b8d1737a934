"""Rotary settings of `config.json` and GGUF metadata, there and back."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.families.family import Settings, expect, rounded
from matura.model.position import frequencies

KEYS = {
    "default": (),
    "linear": ("factor",),
    "dynamic": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor"),
    "yarn": ("factor", "beta_fast", "beta_slow", "attention_factor", "truncate"),
}
"""What each kind of scaling reads; the keys of `SHARED` may stand beside all of them."""
SHARED = (
    "rope_theta",
    "rope_type",
    "type",
    "partial_rotary_factor",
    "original_max_position_embeddings",
    "finetuned",
)


def from_hf(hf: Settings, *, partial: bool = False) -> c.Rope:
    """`rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (before).

    `partial` says that the family can turn the leading part of a head only.
    """
    given = hf.get("rope_scaling") or hf.get("rope_parameters") or {}
    return from_parameters({"rope_theta": hf.get("rope_theta", 10_000.0), **given}, hf, partial=partial)


def from_parameters(rope: Settings, hf: Settings, *, partial: bool = False) -> c.Rope:
    """One set of rotary parameters; `hf` gives the context where they do not name the original one."""
    kind = rope.get("rope_type", rope.get("type", "default"))
    share = rope.get("partial_rotary_factor", hf.get("partial_rotary_factor"))
    width = None
    if share not in (None, 1, 1.0):
        if not partial:
            raise FormatError(
                f"config.json: partial_rotary_factor={share} is not supported in this family; expected 1.0"
            )
        head_width = hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"]
        width = int(head_width * share)
    scaling = _scaling(kind, rope, hf)
    for key, value in rope.items():
        if key not in (*SHARED, *KEYS[kind]) and value is not None:
            raise FormatError(f"config.json: {key}={value!r} of {kind} rope scaling is not supported")
    return c.Rope(theta=float(rope["rope_theta"]), scaling=scaling, width=width)


def _scaling(kind: str, rope: Settings, hf: Settings) -> c.Scaling | None:
    context = hf.get("max_position_embeddings")
    original = rope.get("original_max_position_embeddings") or context
    match kind:
        case "default":
            return None
        case "linear":
            return c.LinearScaling(factor=rope["factor"])
        case "dynamic":
            expect(rope, original_max_position_embeddings=(context, None))  # transformers reads the context
            return c.DynamicScaling(factor=rope["factor"], original_context=context)
        case "llama3":
            return c.Llama3Scaling(
                factor=rope["factor"],
                low_frequency_factor=rope["low_freq_factor"],
                high_frequency_factor=rope["high_freq_factor"],
                original_context=original,
            )
        case "yarn":
            return c.YarnScaling(
                factor=rope["factor"],
                original_context=original,
                beta_fast=rope.get("beta_fast") or 32.0,
                beta_slow=rope.get("beta_slow") or 1.0,
                attention_factor=rope.get("attention_factor"),
                whole=rope.get("truncate", True),
            )
    raise FormatError(
        f"config.json: rope scaling {kind!r} is not supported; linear, dynamic, llama3 and yarn are"
    )


def to_hf(rope: c.Rope, head_width: int) -> dict[str, Any]:
    """`rope_parameters` as transformers 5 writes them."""
    found: dict[str, Any] = {"rope_theta": rope.theta, "rope_type": "default"}
    if rope.width is not None:
        found["partial_rotary_factor"] = rope.width / head_width
    scaling = rope.scaling
    if scaling is not None:
        found |= {"rope_type": scaling.kind, "factor": scaling.factor}
    match scaling:
        case c.Llama3Scaling():
            found |= {
                "low_freq_factor": scaling.low_frequency_factor,
                "high_freq_factor": scaling.high_frequency_factor,
            }
        case c.YarnScaling():
            found |= {
                "beta_fast": scaling.beta_fast,
                "beta_slow": scaling.beta_slow,
                "attention_factor": scaling.attention_factor,
                "truncate": scaling.whole,
            }
    if isinstance(scaling, c.Llama3Scaling | c.YarnScaling):
        found["original_max_position_embeddings"] = scaling.original_context
    return found


def from_gguf(
    metadata: Settings, architecture: str, head_width: int, factors: Sequence[float] | None = None
) -> c.Rope:
    """The keys `<architecture>.rope.*`; `factors` are the values of the tensor rope_freqs.weight, if there is one."""
    prefix = f"{architecture}.rope"
    expect(
        metadata,
        "GGUF",
        **{f"{prefix}.scale_linear": 1.0, f"{prefix}.scaling.attn_factor": 1.0},
        **{f"{prefix}.scaling.yarn_attn_factor": 1.0, f"{prefix}.scaling.yarn_ext_factor": (1.0, -1.0)},
    )
    theta = rounded(metadata.get(f"{prefix}.freq_base", 10_000.0))
    turned = metadata.get(f"{prefix}.dimension_count", head_width)
    plain = c.Rope(theta=theta, width=None if turned == head_width else turned)
    kind = metadata.get(f"{prefix}.scaling.type", "none")
    context = metadata[f"{architecture}.context_length"]
    original = metadata.get(f"{prefix}.scaling.original_context_length", context)
    scaling: c.Scaling | None = None
    if kind == "linear":
        scaling = c.LinearScaling(factor=rounded(metadata[f"{prefix}.scaling.factor"]))
    elif kind == "yarn":
        scaling = c.YarnScaling(
            factor=rounded(metadata[f"{prefix}.scaling.factor"]),
            original_context=original,
            beta_fast=rounded(metadata.get(f"{prefix}.scaling.yarn_beta_fast", 32.0)),
            beta_slow=rounded(metadata.get(f"{prefix}.scaling.yarn_beta_slow", 1.0)),
        )
    elif kind != "none":
        raise FormatError(f"{prefix}.scaling.type {kind!r} is not supported; none, linear and yarn are")
    if factors is not None and any(factor != 1 for factor in factors):
        if scaling is not None:
            raise FormatError(f"rope_freqs.weight together with {kind} scaling is not supported")
        scaling = recognized(plain, head_width, factors, (8192, original, context))
    return plain.model_copy(update={"scaling": scaling})


def to_gguf(rope: c.Rope, head_width: int) -> dict[str, Any]:
    """The keys after `<architecture>.rope.`; Llama-3 scaling is the tensor rope_freqs.weight instead."""
    found: dict[str, Any] = {"freq_base": rope.theta, "dimension_count": rope.width or head_width}
    scaling = rope.scaling
    if isinstance(scaling, c.LinearScaling | c.YarnScaling):
        found |= {"scaling.type": scaling.kind, "scaling.factor": scaling.factor}
    if isinstance(scaling, c.YarnScaling):
        found["scaling.original_context_length"] = scaling.original_context
        if (scaling.beta_fast, scaling.beta_slow) != (32, 1):
            found |= {
                "scaling.yarn_beta_fast": scaling.beta_fast,
                "scaling.yarn_beta_slow": scaling.beta_slow,
            }
    return found


def slowed(rope: c.Rope, head_width: int) -> Tensor:
    """By how much scaling divides each frequency, float32 [J]: what GGUF keeps as rope_freqs.weight."""
    plain = rope.model_copy(update={"scaling": None})
    return (frequencies(plain, head_width)[0] / frequencies(rope, head_width)[0]).float()


def recognized(
    rope: c.Rope, head_width: int, factors: Sequence[float], originals: Iterable[int]
) -> c.Llama3Scaling:
    """The Llama-3 scaling that gives these factors, found by computing them anew from its published ramp (1 to 4).

    The file keeps neither the factor nor the original context. Raises FormatError when nothing fits.
    """
    given, most = torch.tensor(factors, dtype=torch.float32), rounded(max(factors))
    expected = (rope.width or head_width) // 2
    if given.shape == (expected,) and math.isfinite(most) and min(factors) > 0:
        for original in dict.fromkeys(originals):
            for factor in dict.fromkeys((most, 8.0, 32.0)):
                scaling = c.Llama3Scaling(factor=factor, original_context=original)
                found = slowed(rope.model_copy(update={"scaling": scaling}), head_width)
                if torch.allclose(found, given, rtol=1e-4, atol=0):
                    return scaling
    raise FormatError(
        f"rope_freqs.weight: these {len(given)} factors (up to {most:g}) are not those of Llama-3 scaling; "
        "other factors are not supported"
    )
