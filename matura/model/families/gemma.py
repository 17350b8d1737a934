"""Gemma 2 (arXiv:2408.00118) and the text models of Gemma 3 (arXiv:2503.19786).

Norms before and after every part, GeGLU, embeddings times sqrt(width), sliding windows in most layers. Gemma 2 caps
scores and logits; Gemma 3 norms queries and keys instead and turns local layers at another base.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.families import decoder, decoder_gguf, rope
from matura.model.families.family import Family, Settings, expect, rounded
from matura.model.families.weights import Entry, shifted

HF_BLOCK = decoder.BLOCK | {
    "out_norms.0": "post_attention_layernorm",
    "norms.1": "pre_feedforward_layernorm",
    "out_norms.1": "post_feedforward_layernorm",
}
GGUF_BLOCK = decoder_gguf.BLOCK | {
    "out_norms.0": "post_attention_norm",
    "norms.1": "ffn_norm",
    "out_norms.1": "post_ffw_norm",
}
GEMMA2_PERIOD, GEMMA3_PERIOD = 2, 6
"""Every so many layers one sees everything, where a file does not say it."""
LOCAL_THETA, GLOBAL_THETA = 10_000.0, 1_000_000.0
LARGEST = {"gemma2": 46, "gemma3": 62}
"""Layers of the 27B models, whose scores are scaled by width / heads; GGUF files do not say it."""


def gemma2_from_hf(hf: Settings, names: Collection[str]) -> c.ModelConfig:
    """`config.json` to our settings."""
    window = hf.get("sliding_window", 4096)
    return _model(
        hf,
        "gemma2",
        attention=_attention(hf, softcap=hf.get("attn_logit_softcapping", 50.0)),
        softcap=hf.get("final_logit_softcapping", 30.0),
        position=rope.from_hf(hf),
        local=decoder.local_from_hf(hf, window, lambda i: bool((i + 1) % GEMMA2_PERIOD)),
    )


def gemma3_from_hf(hf: Settings, names: Collection[str]) -> c.ModelConfig:
    """`config.json` of `gemma3_text` to our settings; models with pictures (`gemma3`) are not read."""
    expect(hf, attn_logit_softcapping=None)
    period = hf.get("sliding_window_pattern") or hf.get("_sliding_window_pattern") or GEMMA3_PERIOD
    position, local_position = _positions(hf)
    window = hf.get("sliding_window", 4096)
    return _model(
        hf,
        "gemma3_text",
        attention=_attention(hf, qk_norm=_norm(hf)),
        softcap=hf.get("final_logit_softcapping"),
        position=position,
        local=decoder.local_from_hf(hf, window, lambda i: bool((i + 1) % period), local_position),
    )


def _positions(hf: Settings) -> tuple[c.Rope, c.Rope]:
    """Rotary positions of full and of local layers. The older `rope_scaling` is for full layers only."""
    given = hf.get("rope_parameters") or {}
    if given and not {"full_attention", "sliding_attention"} & set(given):
        raise FormatError(
            "config.json: rope_parameters must be given for full_attention and sliding_attention"
        )
    full = {
        "rope_theta": hf.get("rope_theta", GLOBAL_THETA),
        **(given.get("full_attention") or {}),
        **(hf.get("rope_scaling") or {}),
    }
    near = {
        "rope_theta": hf.get("rope_local_base_freq", LOCAL_THETA),
        **(given.get("sliding_attention") or {}),
    }
    return rope.from_parameters(full, hf), rope.from_parameters(near, hf)


def _attention(hf: Settings, **more: Any) -> c.Attention:
    head_width = hf.get("head_dim", 256)
    scalar = hf.get("query_pre_attn_scalar", 256)
    return decoder.attention_from_hf(
        hf, kv_heads=4, head_width=256, scale=None if scalar == head_width else scalar**-0.5, **more
    )


def _norm(hf: Settings) -> c.RMSNorm:
    return c.RMSNorm(eps=hf.get("rms_norm_eps", 1e-6))


def _model(hf: Settings, family: str, *, softcap: float | None, **stack: Any) -> c.ModelConfig:
    expect(hf, hidden_activation="gelu_pytorch_tanh", use_bidirectional_attention=(False, None))
    return decoder.model_from_hf(
        hf,
        family,
        tied=True,
        embedding_scale=hf["hidden_size"] ** 0.5,
        softcap=softcap,
        mlp=c.GeGLU(hidden=hf["intermediate_size"]),
        norm=_norm(hf),
        norm_placement="sandwich",
        **stack,
    )


def _to_hf(
    config: c.ModelConfig, model_type: str, prefix: str, from_hf: decoder.FromHf, **more: Any
) -> dict[str, Any]:
    stack, attention, head = config.last_stack, config.last_stack.attention, config.head
    scalar = attention.head_width if attention.scale is None else round(attention.scale**-2)
    settings = {
        "hidden_act": "gelu_pytorch_tanh",
        "hidden_activation": "gelu_pytorch_tanh",
        "attention_bias": attention.bias == "all",
        "query_pre_attn_scalar": scalar,
        "attn_logit_softcapping": attention.softcap,
        "final_logit_softcapping": head.softcap if isinstance(head, c.LanguageHead) else None,
        "sliding_window": stack.local.window if stack.local else None,
        "layer_types": decoder.layer_types(stack),
    }
    return decoder.model_to_hf(config, model_type, prefix, from_hf, **settings, **more)


def gemma2_to_hf(config: c.ModelConfig) -> dict[str, Any]:
    """Our settings to `config.json`. Raises FormatError for what Gemma 2 does not have."""
    return _to_hf(config, "gemma2", "Gemma2", gemma2_from_hf)


def gemma3_to_hf(config: c.ModelConfig) -> dict[str, Any]:
    """Our settings to `config.json`. Raises FormatError for what Gemma 3 does not have."""
    stack = config.last_stack
    prefix = "Gemma3" if isinstance(config.head, c.LanguageHead) else "Gemma3Text"
    near = (stack.local and stack.local.position) or c.Rope(theta=LOCAL_THETA)
    turns = {"sliding_attention": rope.to_hf(near, stack.attention.head_width)}
    if isinstance(stack.position, c.Rope):
        turns["full_attention"] = rope.to_hf(stack.position, stack.attention.head_width)
    more = {"rope_parameters": turns, "rope_local_base_freq": near.theta}
    return _to_hf(config, "gemma3_text", prefix, gemma3_from_hf, **more)


def entries(config: c.ModelConfig) -> list[Entry]:
    """Hugging Face's tensors; norms are stored as the difference from one."""
    return decoder.entries(config, HF_BLOCK, shifted)


def gemma2_from_gguf(
    metadata: Settings, shapes: decoder_gguf.Shapes, rope_freqs: Sequence[float] | None = None
) -> c.ModelConfig:
    """GGUF metadata (`gemma2.*` keys) to our settings."""
    attention = _gguf_attention(
        metadata, "gemma2", softcap=rounded(metadata.get("gemma2.attn_logit_softcapping", 50.0))
    )
    return _from_gguf(
        metadata,
        shapes,
        "gemma2",
        attention=attention,
        softcap=rounded(metadata.get("gemma2.final_logit_softcapping", 30.0)),
        position=rope.from_gguf(metadata, "gemma2", attention.head_width, rope_freqs),
        local=decoder_gguf.local(metadata, "gemma2", period=GEMMA2_PERIOD, window=4096),
    )


def gemma3_from_gguf(
    metadata: Settings, shapes: decoder_gguf.Shapes, rope_freqs: Sequence[float] | None = None
) -> c.ModelConfig:
    """GGUF metadata (`gemma3.*` keys) to our settings; scaling is of full layers only."""
    attention = _gguf_attention(metadata, "gemma3", qk_norm=decoder_gguf.rms_norm(metadata, "gemma3"))
    softcap = metadata.get("gemma3.final_logit_softcapping")
    theta = {"gemma3.rope.freq_base": GLOBAL_THETA}
    near = c.Rope(theta=rounded(metadata.get("gemma3.rope.freq_base_swa", LOCAL_THETA)))
    return _from_gguf(
        metadata,
        shapes,
        "gemma3",
        family="gemma3_text",
        attention=attention,
        softcap=None if softcap is None else rounded(softcap),
        position=rope.from_gguf(theta | dict(metadata), "gemma3", attention.head_width, rope_freqs),
        local=decoder_gguf.local(metadata, "gemma3", period=GEMMA3_PERIOD, position=near),
    )


def _gguf_attention(metadata: Settings, architecture: str, **more: Any) -> c.Attention:
    attention = decoder_gguf.attention(metadata, architecture, **more)
    if metadata[f"{architecture}.block_count"] != LARGEST[architecture]:
        return attention
    scalar = metadata[f"{architecture}.embedding_length"] // attention.heads
    return attention.model_copy(update={"scale": scalar**-0.5})


def _from_gguf(
    metadata: Settings, shapes: decoder_gguf.Shapes, architecture: str, **more: Any
) -> c.ModelConfig:
    return decoder_gguf.model(
        metadata,
        shapes,
        architecture,
        embedding_scale=metadata[f"{architecture}.embedding_length"] ** 0.5,
        mlp=c.GeGLU(hidden=metadata[f"{architecture}.feed_forward_length"]),
        norm=decoder_gguf.rms_norm(metadata, architecture),
        norm_placement="sandwich",
        **more,
    )


def gguf_entries(config: c.ModelConfig) -> list[Entry]:
    """GGUF's tensors; norms are stored as they are used."""
    return decoder_gguf.entries(config, GGUF_BLOCK)


def _gemma2_metadata(config: c.ModelConfig) -> dict[str, Any]:
    stack = config.last_stack
    found = decoder_gguf.local_metadata(stack, GEMMA2_PERIOD)
    if stack.attention.softcap is not None:
        found["attn_logit_softcapping"] = stack.attention.softcap
    return found | _final_softcap(config)


def _gemma3_metadata(config: c.ModelConfig) -> dict[str, Any]:
    found = decoder_gguf.local_metadata(config.last_stack, GEMMA3_PERIOD) | _final_softcap(config)
    local = config.last_stack.local
    if local and local.position and local.position.theta != LOCAL_THETA:
        found["rope.freq_base_swa"] = local.position.theta
    return found


def _final_softcap(config: c.ModelConfig) -> dict[str, Any]:
    softcap = config.head.softcap if isinstance(config.head, c.LanguageHead) else None
    return {} if softcap is None else {"final_logit_softcapping": softcap}


GEMMA2 = Family(
    name="gemma2",
    model_types=("gemma2",),
    from_hf=gemma2_from_hf,
    to_hf=gemma2_to_hf,
    entries=entries,
    gguf=(decoder_gguf.layout("gemma2", gemma2_from_gguf, gguf_entries, _gemma2_metadata),),
)

GEMMA3 = Family(
    name="gemma3_text",
    model_types=("gemma3_text",),
    from_hf=gemma3_from_hf,
    to_hf=gemma3_to_hf,
    entries=entries,
    gguf=(decoder_gguf.layout("gemma3", gemma3_from_gguf, gguf_entries, _gemma3_metadata),),
)
