"""Llama and its relatives (SmolLM2, TinyLlama): RMSNorm, RoPE, SwiGLU, grouped-query attention."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from matura.core.errors import FormatError
from matura.model import config as c

_HF_BLOCK = {
    "input_layernorm": "norms.0",
    "post_attention_layernorm": "norms.1",
    "self_attn.q_proj": "mixers.0.q",
    "self_attn.k_proj": "mixers.0.k",
    "self_attn.v_proj": "mixers.0.v",
    "self_attn.o_proj": "mixers.0.o",
    "mlp.gate_proj": "mlp.gate",
    "mlp.up_proj": "mlp.up",
    "mlp.down_proj": "mlp.down",
}
_GGUF_BLOCK = {
    "attn_norm": "norms.0",
    "ffn_norm": "norms.1",
    "attn_q": "mixers.0.q",
    "attn_k": "mixers.0.k",
    "attn_v": "mixers.0.v",
    "attn_output": "mixers.0.o",
    "ffn_gate": "mlp.gate",
    "ffn_up": "mlp.up",
    "ffn_down": "mlp.down",
}


def hf_names(config: c.ModelConfig) -> dict[str, str]:
    """Hugging Face tensor name -> ours."""
    return _names(config, "model.embed_tokens", "model.layers", _HF_BLOCK, "model.norm", "lm_head")


def gguf_names(config: c.ModelConfig) -> dict[str, str]:
    """GGUF tensor name -> ours."""
    return _names(config, "token_embd", "blk", _GGUF_BLOCK, "output_norm", "output")


def _names(
    config: c.ModelConfig, embed: str, layer: str, block: dict[str, str], norm: str, head: str
) -> dict[str, str]:
    assert config.decoder is not None
    names = {f"{embed}.weight": "embed.weight", f"{norm}.weight": "decoder.norm.weight"}
    if not config.tied:
        names[f"{head}.weight"] = "head.weight"
    for i in range(config.decoder.layers):
        for theirs, ours in block.items():
            names[f"{layer}.{i}.{theirs}.weight"] = f"decoder.blocks.{i}.{ours}.weight"
    return names


def from_hf_config(hf: dict[str, Any]) -> c.ModelConfig:
    """`config.json` of a Hugging Face folder to ours; settings that change the result and are not known are errors."""
    rope = hf.get("rope_parameters") or {
        "rope_theta": hf.get("rope_theta", 10_000.0),
        **(hf.get("rope_scaling") or {}),
    }
    kind = rope.get("rope_type", rope.get("type", "default"))
    if kind != "default":
        raise FormatError(f"config.json: rope scaling {kind!r} is not supported yet; plain RoPE is")
    for key in ("attention_bias", "mlp_bias"):
        if hf.get(key):
            raise FormatError(f"config.json: {key}=true is not supported for the llama family")
    if hf.get("hidden_act", "silu") != "silu":
        raise FormatError(f"config.json: hidden_act {hf['hidden_act']!r} is not supported; expected 'silu'")
    heads = hf["num_attention_heads"]
    return _config(
        vocabulary=hf["vocab_size"],
        context=hf["max_position_embeddings"],
        layers=hf["num_hidden_layers"],
        width=hf["hidden_size"],
        hidden=hf["intermediate_size"],
        heads=heads,
        kv_heads=hf.get("num_key_value_heads") or heads,
        head_width=hf.get("head_dim") or hf["hidden_size"] // heads,
        eps=hf.get("rms_norm_eps", 1e-6),
        theta=rope["rope_theta"],
        tied=hf.get("tie_word_embeddings", False),
    )


def from_gguf_config(metadata: dict[str, Any], tensor_names: set[str], vocabulary: int) -> c.ModelConfig:
    """GGUF metadata (`llama.*` keys) to ours."""
    if (scaling := metadata.get("llama.rope.scaling.type", "none")) != "none":
        raise FormatError(f"llama.rope.scaling.type {scaling!r} is not supported yet; plain RoPE is")
    heads, width = metadata["llama.attention.head_count"], metadata["llama.embedding_length"]
    return _config(
        vocabulary=vocabulary,
        context=metadata["llama.context_length"],
        layers=metadata["llama.block_count"],
        width=width,
        hidden=metadata["llama.feed_forward_length"],
        heads=heads,
        kv_heads=metadata.get("llama.attention.head_count_kv", heads),
        head_width=metadata.get("llama.attention.key_length", width // heads),
        eps=float(f"{metadata['llama.attention.layer_norm_rms_epsilon']:.6g}"),  # stored as float32
        theta=metadata.get("llama.rope.freq_base", 10_000.0),
        tied="output.weight" not in tensor_names,
    )


def _config(
    *,
    vocabulary: int,
    context: int,
    layers: int,
    width: int,
    hidden: int,
    heads: int,
    kv_heads: int,
    head_width: int,
    eps: float,
    theta: float,
    tied: bool,
) -> c.ModelConfig:
    if head_width % 2:
        raise FormatError(f"the width of a head is {head_width}; rotary positions need an even one")
    decoder = c.StackConfig(
        layers=layers,
        width=width,
        attention=c.Attention(heads=heads, kv_heads=kv_heads, head_width=head_width),
        mlp=c.SwiGLU(hidden=hidden),
        norm=c.RMSNorm(eps=eps),
        position=c.Rope(theta=theta),
    )
    return c.ModelConfig(vocabulary=vocabulary, context=context, decoder=decoder, tied=tied, family="llama")


def unpermute(config: c.ModelConfig, name: str, weight: Tensor) -> Tensor:
    """GGUF keeps llama's query and key rows in interleaved pair order; ours is half-split, as in Hugging Face."""
    assert config.decoder is not None
    attention = config.decoder.attention
    if name.endswith(".q.weight"):
        heads = attention.heads
    elif name.endswith(".k.weight"):
        heads = attention.kv_heads
    else:
        return weight
    if weight.shape != (heads * attention.head_width, config.width):
        return weight  # refused where names and shapes are compared
    rows, width = weight.shape
    return weight.reshape(heads, rows // heads // 2, 2, width).transpose(1, 2).reshape(rows, width)
