"""Llama and its relatives (SmolLM2, TinyLlama): RMSNorm, RoPE, SwiGLU, grouped-query attention."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.families import decoder, rope
from matura.model.families.family import Family, Gguf, Settings, expect, rounded
from matura.model.families.weights import Entry, interleaved


def from_hf(hf: Settings, names: Collection[str]) -> c.ModelConfig:
    """`config.json` to our settings."""
    expect(hf, hidden_act="silu", mlp_bias=False, pretraining_tp=(1, None))
    attention = decoder.attention_from_hf(hf, bias="all" if hf.get("attention_bias") else "none")
    return decoder.model_from_hf(
        hf,
        "llama",
        attention=attention,
        mlp=c.SwiGLU(hidden=hf["intermediate_size"]),
        norm=c.RMSNorm(eps=hf.get("rms_norm_eps", 1e-6)),
        position=rope.from_hf(hf),
    )


def to_hf(config: c.ModelConfig) -> dict[str, Any]:
    """Our settings to `config.json`."""
    stack = config.last_stack
    return decoder.model_to_hf(config, "llama", "Llama", attention_bias=stack.attention.bias == "all")


def entries(config: c.ModelConfig) -> list[Entry]:
    """Hugging Face's tensors."""
    return decoder.hf_entries(config)


def from_gguf(metadata: Settings, shapes: Mapping[str, tuple[int, ...]]) -> c.ModelConfig:
    """GGUF metadata (`llama.*` keys) to our settings."""
    if (scaling := metadata.get("llama.rope.scaling.type", "none")) != "none":
        raise FormatError(f"llama.rope.scaling.type {scaling!r} is not supported yet; plain RoPE is")
    heads, width = metadata["llama.attention.head_count"], metadata["llama.embedding_length"]
    stack = c.StackConfig(
        layers=metadata["llama.block_count"],
        width=width,
        attention=c.Attention(
            heads=heads,
            kv_heads=metadata.get("llama.attention.head_count_kv", heads),
            head_width=metadata.get("llama.attention.key_length", width // heads),
        ),
        mlp=c.SwiGLU(hidden=metadata["llama.feed_forward_length"]),
        norm=c.RMSNorm(eps=rounded(metadata["llama.attention.layer_norm_rms_epsilon"])),
        position=c.Rope(theta=metadata.get("llama.rope.freq_base", 10_000.0)),
    )
    return c.ModelConfig(
        vocabulary=shapes["token_embd.weight"][0],
        context=metadata["llama.context_length"],
        decoder=stack,
        head=c.LanguageHead(tied="output.weight" not in shapes),
        family="llama",
    )


def to_gguf(config: c.ModelConfig) -> dict[str, Any]:
    """Our settings to GGUF metadata."""
    return decoder.gguf_metadata(config, "llama")


def gguf_entries(config: c.ModelConfig) -> list[Entry]:
    """GGUF's tensors; rows of queries and keys are in the order of pairs."""
    attention = config.last_stack.attention
    heads = {"q": attention.heads, "k": attention.kv_heads}
    found = []
    for entry in decoder.gguf_entries(config):
        part = entry.ours[0].split(".")[-2]
        found.append(interleaved(entry.theirs, entry.ours[0], heads[part]) if part in heads else entry)
    return found


LLAMA = Family(
    name="llama",
    model_types=("llama",),
    from_hf=from_hf,
    to_hf=to_hf,
    entries=entries,
    gguf=(Gguf("llama", from_gguf, to_gguf, gguf_entries),),
    ignored=("rotary_emb.inv_freq",),
)
