"""Settings of tiny decoders of every family and option, as transformers has them."""

from __future__ import annotations

import copy
import json
from typing import Any

import torch
from transformers import (
    Gemma2Config,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    MistralConfig,
    Phi3Config,
    PretrainedConfig,
    Qwen2Config,
    Qwen3Config,
)

from matura.model import config as c
from matura.model.families import registry
from tests.model.families.reference import VOCABULARY

SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
GPT2_SIZES: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "n_positions": 64,
    "n_embd": 32,
    "n_layer": 2,
    "n_head": 4,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
YARN = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 16}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}


def llama(rope: dict[str, Any] | None = None, **more: Any) -> PretrainedConfig:
    """A Llama with these rotary parameters."""
    parameters = {"rope_type": "default", "rope_theta": 100.0} | (rope or {})
    return LlamaConfig(**SIZES | {"rope_parameters": parameters, "tie_word_embeddings": False} | more)


def gemma3(**more: Any) -> PretrainedConfig:
    """A Gemma 3 with two kinds of layers."""
    turns = {
        "full_attention": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 8.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 100.0},
    }
    own = {"head_dim": 16, "sliding_window": 5, "query_pre_attn_scalar": 24, "rope_parameters": turns}
    own["layer_types"] = ["sliding_attention", "full_attention", "sliding_attention"]
    return Gemma3TextConfig(**SIZES | own | more)


CONFIGS: dict[str, PretrainedConfig] = {
    "gpt2": GPT2Config(**GPT2_SIZES),
    "gpt2-options": GPT2Config(
        **GPT2_SIZES,
        n_inner=40,
        activation_function="gelu",
        scale_attn_weights=False,
        tie_word_embeddings=False,
    ),
    "llama": llama(),
    "llama-biased": llama(attention_bias=True, tie_word_embeddings=True, head_dim=16),
    "llama-linear": llama({"rope_type": "linear", "factor": 3.0}),
    "llama-dynamic": llama({"rope_type": "dynamic", "factor": 2.0}, max_position_embeddings=16),
    "llama-llama3": llama(LLAMA3),
    "llama-yarn": llama(YARN),
    "llama-yarn-options": llama(
        YARN | {"beta_fast": 8.0, "beta_slow": 0.5, "attention_factor": 1.3, "truncate": False}
    ),
    "mistral": MistralConfig(**SIZES, sliding_window=5, head_dim=16),
    "mistral-full": MistralConfig(**SIZES, sliding_window=None),
    "qwen2": Qwen2Config(**SIZES, use_sliding_window=True, sliding_window=5, max_window_layers=1),
    "qwen2-full": Qwen2Config(**SIZES, tie_word_embeddings=True, rope_parameters=YARN | {"rope_theta": 1e6}),
    "qwen3": Qwen3Config(**SIZES, head_dim=16),
    "qwen3-options": Qwen3Config(
        **SIZES,
        head_dim=8,
        attention_bias=True,
        use_sliding_window=True,
        sliding_window=4,
        layer_types=["full_attention", "sliding_attention", "full_attention"],
    ),
    "gemma2": Gemma2Config(**SIZES, head_dim=16, sliding_window=5, query_pre_attn_scalar=24),
    "gemma2-plain": Gemma2Config(
        **SIZES,
        head_dim=8,
        query_pre_attn_scalar=8,
        sliding_window=5,
        attn_logit_softcapping=None,
        final_logit_softcapping=None,
        attention_bias=True,
        tie_word_embeddings=False,
    ),
    "gemma3": gemma3(),
    "gemma3-capped": gemma3(final_logit_softcapping=3.0, layer_types=None, num_hidden_layers=7),
    "phi3": Phi3Config(**SIZES, sliding_window=6),
    "phi3-partial": Phi3Config(
        **SIZES, rope_parameters={"rope_type": "default", "rope_theta": 100.0, "partial_rotary_factor": 0.5}
    ),
}
"""Every family, and every option of its settings that changes what is computed."""

MAIN = ("gpt2", "llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3")
"""One of each family."""


def capped(config: PretrainedConfig) -> PretrainedConfig:
    """A copy with attention written out: the fused kernels leave the caps of scores away."""
    torch.manual_seed(0)
    config = copy.deepcopy(config)  # saving a model notes its class there
    config._attn_implementation = "eager"
    return config


def settings(config: PretrainedConfig) -> dict[str, Any]:
    """What `config.json` holds."""
    found: dict[str, Any] = json.loads(config.to_json_string())
    return found


def ours_of(name: str) -> c.ModelConfig:
    """Our settings of one of the tiny configurations."""
    hf = settings(CONFIGS[name])
    return registry.by_model_type(hf["model_type"]).from_hf(hf, ())
