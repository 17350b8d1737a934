"""Mistral: Llama with a sliding window in every layer (arXiv:2310.06825)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.families import decoder, llama, rope
from matura.model.families.family import Family, Gguf, Settings, expect


def from_hf(hf: Settings, names: Collection[str]) -> c.ModelConfig:
    """`config.json` to our settings; a missing `sliding_window` is 4096, null is none."""
    expect(hf, hidden_act="silu", layer_types=None)
    layers, window = hf["num_hidden_layers"], hf.get("sliding_window", 4096)
    return decoder.model_from_hf(
        hf,
        "mistral",
        attention=decoder.attention_from_hf({**hf, "attention_bias": False}, kv_heads=8),
        mlp=c.SwiGLU(hidden=hf["intermediate_size"]),
        norm=c.RMSNorm(eps=hf.get("rms_norm_eps", 1e-6)),
        position=rope.from_hf(hf),
        local=decoder.local_layers(layers, window, lambda i: True),
    )


def to_hf(config: c.ModelConfig) -> dict[str, Any]:
    """Our settings to `config.json`. Raises FormatError for what Mistral does not have."""
    local = config.last_stack.local
    window = local.window if local else None
    return decoder.model_to_hf(config, "mistral", "Mistral", from_hf, sliding_window=window)


def to_gguf(config: c.ModelConfig) -> dict[str, Any]:
    """GGUF has no architecture of this name: a model without window is written as a Llama, and read back as one."""
    if config.last_stack.local is not None:
        raise FormatError(
            "GGUF keeps Mistral models as Llama models, which have no sliding window; "
            "this one has (write the Hugging Face layout instead)"
        )
    return llama.LLAMA.gguf[0].to_metadata(config)


MISTRAL = Family(
    name="mistral",
    model_types=("mistral",),
    from_hf=from_hf,
    to_hf=to_hf,
    entries=decoder.entries,
    gguf=(Gguf("llama", llama.from_gguf, to_gguf, llama.gguf_entries),),
    ignored=("rotary_emb.inv_freq",),
)
