"""Llama 2 and 3 and their relatives (SmolLM2, TinyLlama): RMSNorm, RoPE, SwiGLU, grouped-query attention.

arXiv:2307.09288, arXiv:2407.21783.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from matura.model import config as c
from matura.model.families import decoder, decoder_gguf, rope
from matura.model.families.family import Family, Settings, expect
from matura.model.families.weights import Entry, interleaved


def from_hf(hf: Settings, names: Collection[str]) -> c.ModelConfig:
    """`config.json` to our settings."""
    expect(hf, hidden_act="silu", mlp_bias=(False, None), pretraining_tp=(1, None))
    return decoder.model_from_hf(
        hf,
        "llama",
        attention=decoder.attention_from_hf(hf),
        mlp=c.SwiGLU(hidden=hf["intermediate_size"]),
        norm=c.RMSNorm(eps=hf.get("rms_norm_eps", 1e-6)),
        position=rope.from_hf(hf),
    )


def to_hf(config: c.ModelConfig) -> dict[str, Any]:
    """Our settings to `config.json`. Raises FormatError for what Llama does not have."""
    biased = config.last_stack.attention.bias == "all"
    return decoder.model_to_hf(config, "llama", "Llama", from_hf, attention_bias=biased)


def from_gguf(
    metadata: Settings, shapes: decoder_gguf.Shapes, rope_freqs: Sequence[float] | None = None
) -> c.ModelConfig:
    """GGUF metadata (`llama.*` keys) to our settings; `rope_freqs` says the scaling of Llama 3.1 and later."""
    biased = "blk.0.attn_output.bias" in shapes
    attention = decoder_gguf.attention(metadata, "llama", bias="all" if biased else "none")
    return decoder_gguf.model(
        metadata,
        shapes,
        "llama",
        attention=attention,
        mlp=c.SwiGLU(hidden=metadata["llama.feed_forward_length"]),
        norm=decoder_gguf.rms_norm(metadata, "llama"),
        position=rope.from_gguf(metadata, "llama", attention.head_width, rope_freqs),
    )


def gguf_entries(config: c.ModelConfig) -> list[Entry]:
    """GGUF's tensors; rows of queries and keys are in the order of pairs."""
    attention = config.last_stack.attention
    heads = {"q": attention.heads, "k": attention.kv_heads}
    found = []
    for entry in decoder_gguf.entries(config):
        part = entry.ours[0].split(".")[-2] if entry.ours else ""
        found.append(interleaved(entry.theirs, entry.ours[0], heads[part]) if part in heads else entry)
    return found


LLAMA = Family(
    name="llama",
    model_types=("llama",),
    from_hf=from_hf,
    to_hf=to_hf,
    entries=decoder.entries,
    gguf=(decoder_gguf.layout("llama", from_gguf, gguf_entries),),
    ignored=("rotary_emb.inv_freq",),
)
