"""Qwen 2 and 2.5 (biases at queries, keys and values; arXiv:2407.10671) and Qwen 3 (QK-norm instead;
arXiv:2505.09388), both otherwise like Llama."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from matura.model import config as c
from matura.model.families import decoder, decoder_gguf, rope
from matura.model.families.family import Family, Settings, expect


def qwen2_from_hf(hf: Settings, names: Collection[str]) -> c.ModelConfig:
    """`config.json` to our settings."""
    attention = decoder.attention_from_hf({**hf, "attention_bias": False}, bias="qkv", kv_heads=32)
    return _model(hf, "qwen2", attention)


def qwen3_from_hf(hf: Settings, names: Collection[str]) -> c.ModelConfig:
    """`config.json` to our settings; a missing `head_dim` is 128."""
    attention = decoder.attention_from_hf(hf, kv_heads=32, head_width=128, qk_norm=_norm(hf))
    return _model(hf, "qwen3", attention)


def _norm(hf: Settings) -> c.RMSNorm:
    return c.RMSNorm(eps=hf.get("rms_norm_eps", 1e-6))


def _model(hf: Settings, family: str, attention: c.Attention) -> c.ModelConfig:
    """Windows are used when `use_sliding_window` says so: in `layer_types`, or from `max_window_layers` on."""
    expect(hf, hidden_act="silu")
    window = hf.get("sliding_window", 4096) if hf.get("use_sliding_window") else None
    full = hf.get("max_window_layers", 28)
    return decoder.model_from_hf(
        hf,
        family,
        attention=attention,
        mlp=c.SwiGLU(hidden=hf["intermediate_size"]),
        norm=_norm(hf),
        position=rope.from_hf(hf),
        local=decoder.local_from_hf(hf, window, lambda i: i >= full),
    )


def _to_hf(config: c.ModelConfig, name: str, from_hf: decoder.FromHf, **more: Any) -> dict[str, Any]:
    local = config.last_stack.local
    windows = {
        "use_sliding_window": local is not None,
        "sliding_window": local.window if local else None,
        "layer_types": decoder.layer_types(config.last_stack),
    }
    return decoder.model_to_hf(config, name.lower(), name, from_hf, **windows, **more)


def qwen2_to_hf(config: c.ModelConfig) -> dict[str, Any]:
    """Our settings to `config.json`. Raises FormatError for what Qwen 2 does not have."""
    return _to_hf(config, "Qwen2", qwen2_from_hf)


def qwen3_to_hf(config: c.ModelConfig) -> dict[str, Any]:
    """Our settings to `config.json`. Raises FormatError for what Qwen 3 does not have."""
    biased = config.last_stack.attention.bias == "all"
    return _to_hf(config, "Qwen3", qwen3_from_hf, attention_bias=biased)


def qwen2_from_gguf(
    metadata: Settings, shapes: decoder_gguf.Shapes, rope_freqs: Sequence[float] | None = None
) -> c.ModelConfig:
    """GGUF metadata (`qwen2.*` keys) to our settings."""
    return _from_gguf(metadata, shapes, "qwen2", rope_freqs, bias="qkv")


def qwen3_from_gguf(
    metadata: Settings, shapes: decoder_gguf.Shapes, rope_freqs: Sequence[float] | None = None
) -> c.ModelConfig:
    """GGUF metadata (`qwen3.*` keys) to our settings."""
    qk_norm = decoder_gguf.rms_norm(metadata, "qwen3")
    return _from_gguf(metadata, shapes, "qwen3", rope_freqs, qk_norm=qk_norm)


def _from_gguf(
    metadata: Settings,
    shapes: decoder_gguf.Shapes,
    architecture: str,
    rope_freqs: Sequence[float] | None,
    **more: Any,
) -> c.ModelConfig:
    attention = decoder_gguf.attention(metadata, architecture, **more)
    return decoder_gguf.model(
        metadata,
        shapes,
        architecture,
        attention=attention,
        mlp=c.SwiGLU(hidden=metadata[f"{architecture}.feed_forward_length"]),
        norm=decoder_gguf.rms_norm(metadata, architecture),
        position=rope.from_gguf(metadata, architecture, attention.head_width, rope_freqs),
    )


QWEN2 = Family(
    name="qwen2",
    model_types=("qwen2",),
    from_hf=qwen2_from_hf,
    to_hf=qwen2_to_hf,
    entries=decoder.entries,
    gguf=(decoder_gguf.layout("qwen2", qwen2_from_gguf, decoder_gguf.entries),),
)

QWEN3 = Family(
    name="qwen3",
    model_types=("qwen3",),
    from_hf=qwen3_from_hf,
    to_hf=qwen3_to_hf,
    entries=decoder.entries,
    gguf=(decoder_gguf.layout("qwen3", qwen3_from_gguf, decoder_gguf.entries),),
)
