"""Phi-3: Llama with queries, keys and values in one matrix, gate and up in another (arXiv:2404.14219)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.families import decoder, decoder_gguf, rope
from matura.model.families.family import Family, Settings, expect
from matura.model.families.weights import Entry, same, stacked

FUSED = {"mixers.0": ("q", "k", "v"), "mlp": ("gate", "up")}
"""Our parts of a block -> what lies under each other in one matrix of theirs."""
HF_BLOCK = {
    "norms.0": "input_layernorm",
    "mixers.0": "self_attn.qkv_proj",
    "mixers.0.o": "self_attn.o_proj",
    "norms.1": "post_attention_layernorm",
    "mlp": "mlp.gate_up_proj",
    "mlp.down": "mlp.down_proj",
}
GGUF_BLOCK = {
    "norms.0": "attn_norm",
    "mixers.0": "attn_qkv",
    "mixers.0.o": "attn_output",
    "norms.1": "ffn_norm",
    "mlp": "ffn_up",
    "mlp.down": "ffn_down",
}
PADDING = 32_000
"""The token that transformers takes for padding when config.json does not say it; small vocabularies do not have it."""
LONGROPE = "LongRoPE (one list of factors for short texts, another for long ones) is not supported"


def from_hf(hf: Settings, names: Collection[str]) -> c.ModelConfig:
    """`config.json` to our settings. LongRoPE (the 128k models) is refused."""
    scaling = hf.get("rope_scaling") or hf.get("rope_parameters") or {}
    kind = scaling.get("rope_type", scaling.get("type", "default"))
    if kind in ("longrope", "su", "yarn"):  # older names of the same
        raise FormatError(f"config.json: rope scaling {kind!r}: {LONGROPE}; use a model of 4k context")
    dropout = hf.get("resid_pdrop", 0.0)
    expect(hf, hidden_act="silu", embd_pdrop=dropout, layer_types=None)
    layers = hf["num_hidden_layers"]
    return decoder.model_from_hf(
        hf,
        "phi3",
        attention=decoder.attention_from_hf({**hf, "attention_bias": False}),
        mlp=c.SwiGLU(hidden=hf["intermediate_size"]),
        norm=c.RMSNorm(eps=hf.get("rms_norm_eps", 1e-5)),
        position=rope.from_hf(hf, partial=True),
        local=decoder.local_layers(layers, hf.get("sliding_window"), lambda i: True),
        dropout=dropout,
    )


def to_hf(config: c.ModelConfig) -> dict[str, Any]:
    """Our settings to `config.json`. Raises FormatError for what Phi-3 does not have."""
    stack = config.last_stack
    padding = {"pad_token_id": None} if config.vocabulary <= PADDING else {}
    return decoder.model_to_hf(
        config,
        "phi3",
        "Phi3",
        from_hf,
        sliding_window=stack.local.window if stack.local else None,
        original_max_position_embeddings=config.context,
        resid_pdrop=stack.dropout,
        embd_pdrop=stack.dropout,
        **padding,
    )


def entries(config: c.ModelConfig) -> list[Entry]:
    """Hugging Face's tensors."""
    prefix = "" if isinstance(config.head, c.NoHead) else "model."
    return [
        same(f"{prefix}embed_tokens.weight", "embed.weight"),
        *_blocks(config, f"{prefix}layers", HF_BLOCK),
        same(f"{prefix}norm.weight", "decoder.norm.weight"),
        *decoder.head_entries(config),
    ]


def _blocks(config: c.ModelConfig, layers: str, block: dict[str, str]) -> list[Entry]:
    stack, attention = config.last_stack, config.last_stack.attention
    inner, inner_kv = (n * attention.head_width for n in (attention.heads, attention.kv_heads))
    rows = {"mixers.0": (inner, inner_kv, inner_kv), "mlp": (stack.mlp.hidden, stack.mlp.hidden)}
    found = []
    for i in range(stack.layers):
        for ours, theirs in block.items():
            name, into = f"{layers}.{i}.{theirs}.weight", f"decoder.blocks.{i}.{ours}"
            if ours in FUSED:
                found.append(stacked(name, [f"{into}.{part}.weight" for part in FUSED[ours]], rows[ours]))
            else:
                found.append(same(name, f"{into}.weight"))
    return found


def from_gguf(
    metadata: Settings, shapes: decoder_gguf.Shapes, rope_freqs: Sequence[float] | None = None
) -> c.ModelConfig:
    """GGUF metadata (`phi3.*` keys) to our settings; a window of 0 is none. LongRoPE is refused."""
    if metadata.get("phi3.rope.scaling.type") == "longrope" or "rope_factors_long.weight" in shapes:
        raise FormatError(f"rope_factors_long.weight: {LONGROPE}; use a model of 4k context")
    attention = decoder_gguf.attention(metadata, "phi3")
    layers, window = metadata["phi3.block_count"], metadata.get("phi3.attention.sliding_window")
    return decoder_gguf.model(
        metadata,
        shapes,
        "phi3",
        attention=attention,
        mlp=c.SwiGLU(hidden=metadata["phi3.feed_forward_length"]),
        norm=decoder_gguf.rms_norm(metadata, "phi3"),
        position=rope.from_gguf(metadata, "phi3", attention.head_width, rope_freqs),
        local=decoder.local_layers(layers, window, lambda i: True),
    )


def gguf_entries(config: c.ModelConfig) -> list[Entry]:
    """GGUF's tensors."""
    return [*decoder_gguf.outside(config), *_blocks(config, "blk", GGUF_BLOCK)]


def _gguf_window(config: c.ModelConfig) -> dict[str, Any]:
    local = config.last_stack.local
    return {
        "attention.sliding_window": local.window if local else 0,
        "rope.scaling.original_context_length": config.context,  # llama.cpp asks for it
    }


PHI3 = Family(
    name="phi3",
    model_types=("phi3",),
    from_hf=from_hf,
    to_hf=to_hf,
    entries=entries,
    gguf=(decoder_gguf.layout("phi3", from_gguf, gguf_entries, _gguf_window),),
)
