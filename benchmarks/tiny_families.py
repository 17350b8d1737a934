"""A tiny random model of every family, made by transformers: what the maps of names and settings are proven on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

VOCABULARY = 320
CONTEXT = 128
DECODER: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": CONTEXT,
}
ENCODER = {key: value for key, value in DECODER.items() if key != "num_key_value_heads"}
NO_IDS: dict[str, Any] = {"bos_token_id": None, "eos_token_id": None, "pad_token_id": None}
"""Otherwise the defaults of a class name tokens that this vocabulary lacks, and answers would stop at them."""


def _rope(theta: float = 10_000.0, **scaling: Any) -> dict[str, Any]:
    return {"rope_parameters": {"rope_type": "default", "rope_theta": theta} | scaling}


LLAMA_3 = _rope(
    500_000.0,
    rope_type="llama3",
    factor=8.0,
    low_freq_factor=1.0,
    high_freq_factor=4.0,
    original_max_position_embeddings=32,
)
GPT2: dict[str, Any] = {"n_positions": CONTEXT, "n_embd": 48, "n_layer": 4, "n_head": 4}
GEMMA: dict[str, Any] = {"head_dim": 16, "query_pre_attn_scalar": 24, "sliding_window": 16}
GEMMA_3: dict[str, Any] = {
    "rope_parameters": {
        "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
    },
    "layer_types": ["sliding_attention", "sliding_attention", "full_attention", "sliding_attention"],
}
T5: dict[str, Any] = {"d_model": 48, "d_kv": 16, "d_ff": 80, "num_layers": 2, "num_heads": 4}
T5_IDS = {"decoder_start_token_id": 0, "pad_token_id": 0, "eos_token_id": 1}
MARIAN: dict[str, Any] = {
    "d_model": 48,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 80,
    "decoder_ffn_dim": 80,
    "max_position_embeddings": CONTEXT,
    "scale_embedding": True,
    "pad_token_id": 0,
    "decoder_start_token_id": 0,
    "eos_token_id": 1,
    "forced_eos_token_id": None,
}

MODELS: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("LlamaForCausalLM", DECODER | NO_IDS | {"tie_word_embeddings": False}),
    "llama-3 positions": ("LlamaForCausalLM", DECODER | NO_IDS | LLAMA_3),
    "mistral window": ("MistralForCausalLM", DECODER | NO_IDS | {"sliding_window": 16}),
    "qwen2": ("Qwen2ForCausalLM", DECODER | NO_IDS),
    "qwen3": ("Qwen3ForCausalLM", DECODER | NO_IDS | {"head_dim": 16}),
    "gemma2": ("Gemma2ForCausalLM", DECODER | NO_IDS | GEMMA),
    "gemma3": ("Gemma3ForCausalLM", DECODER | NO_IDS | GEMMA | GEMMA_3),
    "phi3": ("Phi3ForCausalLM", DECODER | NO_IDS),
    "gpt2": ("GPT2LMHeadModel", {"vocab_size": VOCABULARY, **GPT2, **NO_IDS}),
    "bert": ("BertForMaskedLM", ENCODER),
    "roberta": ("RobertaForMaskedLM", ENCODER | {"max_position_embeddings": CONTEXT + 2}),
    "xlm-roberta": ("XLMRobertaForMaskedLM", ENCODER | {"max_position_embeddings": CONTEXT + 2}),
    "distilbert": (
        "DistilBertForMaskedLM",
        {"vocab_size": VOCABULARY, "dim": 48, "hidden_dim": 80, "n_layers": 4, "n_heads": 4}
        | {"max_position_embeddings": CONTEXT},
    ),
    "t5": ("T5ForConditionalGeneration", {"vocab_size": VOCABULARY, **T5, **T5_IDS}),
    "flan-t5": (
        "T5ForConditionalGeneration",
        {"vocab_size": VOCABULARY, **T5, **T5_IDS, "feed_forward_proj": "gated-gelu"}
        | {"tie_word_embeddings": False},
    ),
    "marian": ("MarianMTModel", {"vocab_size": VOCABULARY, **MARIAN}),
}
"""Name of a row -> class of transformers, and its settings."""


def build(row: str, seed: int = 0, **more: Any) -> Any:
    """The model in evaluation mode, in float32; `more` changes its settings, or those of its rotary positions.

    Its weights are large enough that every part matters and that the likeliest token stands out.
    """
    import torch
    import transformers

    kind, settings = MODELS[row]
    made = getattr(transformers, kind)
    rope = {key: more.pop(key) for key in set(more) & set(settings.get("rope_parameters", ()))}
    if rope:
        more["rope_parameters"] = settings["rope_parameters"] | rope
    config = made.config_class(**{**settings, **more})
    torch.manual_seed(seed)
    model = made(config).eval()
    generator = torch.Generator().manual_seed(seed)
    stored = model.state_dict()
    # Tensors that are computed, not trained, stay: scales, wavelengths, sinusoids.
    trained = dict(model.named_parameters()) | {
        name: stored[name] for name in stored if name.endswith("bias")
    }
    with torch.no_grad():
        for name, tensor in trained.items():
            if "embed_positions" in name:
                continue
            if tensor.dim() >= 2 and len(tensor) > 1:
                tensor.normal_(0.0, 0.12, generator=generator)
            else:  # norms and biases too, or a forgotten one would not show
                tensor.add_(torch.randn(tensor.shape, generator=generator) * 0.1)
    return model


def save(name: str, folder: Path, seed: int = 0, **more: Any) -> Any:
    """Write it as other projects do, and return it."""
    model = build(name, seed, **more)
    model.save_pretrained(folder)
    return model


def families(of: Callable[[object], Any]) -> set[str]:
    """The families that the models belong to; `of(model_type)` gives one."""
    import transformers

    return {of(getattr(transformers, kind).config_class.model_type).name for kind, _ in MODELS.values()}
