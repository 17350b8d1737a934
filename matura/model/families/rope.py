"""Rotary settings of `config.json` and GGUF metadata, there and back."""

from __future__ import annotations

from typing import Any

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.families.family import Settings


def from_hf(hf: Settings, default_theta: float = 10_000.0) -> c.Rope:
    """`rope_parameters` (transformers 5) or `rope_theta` with `rope_scaling` (before)."""
    given = hf.get("rope_parameters") or hf.get("rope_scaling") or {}
    return from_parameters({"rope_theta": hf.get("rope_theta", default_theta), **given}, hf)


def from_parameters(rope: Settings, hf: Settings) -> c.Rope:
    """One set of rotary parameters; `hf` gives the context where they do not name the original one."""
    theta = float(rope["rope_theta"])
    kind = rope.get("rope_type", rope.get("type", "default"))
    partial = rope.get("partial_rotary_factor", hf.get("partial_rotary_factor", 1.0))
    width = None
    if partial not in (None, 1, 1.0):
        head_width = hf.get("head_dim") or hf["hidden_size"] // hf["num_attention_heads"]
        width = int(head_width * partial)
    return c.Rope(theta=theta, scaling=_scaling(kind, rope, hf), width=width)


def _scaling(kind: str, rope: Settings, hf: Settings) -> c.Scaling | None:
    original = rope.get("original_max_position_embeddings") or hf.get("max_position_embeddings")
    match kind:
        case "default":
            return None
        case "linear":
            return c.LinearScaling(factor=rope["factor"])
        case "dynamic":
            return c.DynamicScaling(factor=rope["factor"], original_context=original)
        case "llama3":
            return c.Llama3Scaling(
                factor=rope["factor"],
                low_frequency_factor=rope["low_freq_factor"],
                high_frequency_factor=rope["high_freq_factor"],
                original_context=original,
            )
        case "yarn":
            for key in ("mscale", "mscale_all_dim"):
                if rope.get(key) is not None:
                    raise FormatError(f"config.json: {key} of YaRN scaling is not supported")
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
    match scaling:
        case c.LinearScaling():
            found |= {"rope_type": "linear", "factor": scaling.factor}
        case c.DynamicScaling():
            found |= {"rope_type": "dynamic", "factor": scaling.factor}
        case c.Llama3Scaling():
            found |= {
                "rope_type": "llama3",
                "factor": scaling.factor,
                "low_freq_factor": scaling.low_frequency_factor,
                "high_freq_factor": scaling.high_frequency_factor,
            }
        case c.YarnScaling():
            found |= {
                "rope_type": "yarn",
                "factor": scaling.factor,
                "beta_fast": scaling.beta_fast,
                "beta_slow": scaling.beta_slow,
                "attention_factor": scaling.attention_factor,
                "truncate": scaling.whole,
            }
    if scaling is not None and not isinstance(scaling, c.LinearScaling):
        found["original_max_position_embeddings"] = scaling.original_context
    return found
