"""What the families of today's decoders share: Llama's names of settings and tensors."""

from __future__ import annotations

from typing import Any, Literal

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.families import rope
from matura.model.families.family import Settings
from matura.model.families.weights import Entry, same

HF_BLOCK = {
    "norms.0": "input_layernorm",
    "norms.1": "post_attention_layernorm",
    "mixers.0.q": "self_attn.q_proj",
    "mixers.0.k": "self_attn.k_proj",
    "mixers.0.v": "self_attn.v_proj",
    "mixers.0.o": "self_attn.o_proj",
    "mixers.0.q_norm": "self_attn.q_norm",
    "mixers.0.k_norm": "self_attn.k_norm",
    "mlp.gate": "mlp.gate_proj",
    "mlp.up": "mlp.up_proj",
    "mlp.down": "mlp.down_proj",
}
"""Our part of a block -> Hugging Face's."""

GGUF_BLOCK = {
    "norms.0": "attn_norm",
    "norms.1": "ffn_norm",
    "mixers.0.q": "attn_q",
    "mixers.0.k": "attn_k",
    "mixers.0.v": "attn_v",
    "mixers.0.o": "attn_output",
    "mixers.0.q_norm": "attn_q_norm",
    "mixers.0.k_norm": "attn_k_norm",
    "mlp.gate": "ffn_gate",
    "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
}
"""Our part of a block -> GGUF's."""


def attention_from_hf(
    hf: Settings, *, bias: Literal["none", "qkv", "all"] = "none", **more: Any
) -> c.Attention:
    """Heads as Llama's settings name them."""
    heads = hf["num_attention_heads"]
    return c.Attention(
        heads=heads,
        kv_heads=hf.get("num_key_value_heads") or heads,
        head_width=hf.get("head_dim") or hf["hidden_size"] // heads,
        bias=bias,
        **more,
    )


def model_from_hf(
    hf: Settings,
    family: str,
    *,
    tied: bool = False,
    embedding_scale: float = 1.0,
    softcap: float | None = None,
    **stack: Any,
) -> c.ModelConfig:
    """A decoder from `config.json`; `tied` is what a missing `tie_word_embeddings` means."""
    return c.ModelConfig(
        vocabulary=hf["vocab_size"],
        context=hf["max_position_embeddings"],
        decoder=c.StackConfig(layers=hf["num_hidden_layers"], width=hf["hidden_size"], **stack),
        head=head_from_hf(hf, tied=tied, softcap=softcap),
        embedding_scale=embedding_scale,
        family=family,
    )


def head_from_hf(hf: Settings, *, tied: bool = False, softcap: float | None = None) -> c.Head:
    """The head that `architectures` names: a language model without it."""
    named = (hf.get("architectures") or ["ForCausalLM"])[0]
    if named.endswith(("ForCausalLM", "LMHeadModel")):
        return c.LanguageHead(tied=hf.get("tie_word_embeddings", tied), softcap=softcap)
    if named.endswith("ForSequenceClassification"):
        return c.Classifier(labels=labels_from_hf(hf), pool="last", hidden="none", bias=False)
    if named.endswith("Model"):
        return c.NoHead()
    raise FormatError(
        f"config.json: the architecture {named!r} is not supported; "
        "ForCausalLM, ForSequenceClassification and Model are"
    )


def labels_from_hf(hf: Settings) -> tuple[str, ...]:
    """Names of the classes in order."""
    names = {int(i): str(name) for i, name in (hf.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"}).items()}
    if sorted(names) != list(range(len(names))):
        raise FormatError("config.json: id2label must name the classes 0, 1, ... without a gap")
    return tuple(names[i] for i in range(len(names)))


def labels_to_hf(labels: tuple[str, ...]) -> dict[str, Any]:
    """`id2label` and its inverse."""
    return {
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
    }


def model_to_hf(config: c.ModelConfig, model_type: str, prefix: str, **more: Any) -> dict[str, Any]:
    """`config.json` in Llama's terms; `prefix` begins the class names of transformers."""
    stack, attention = config.last_stack, config.last_stack.attention
    suffix = {"language": "ForCausalLM", "classifier": "ForSequenceClassification"}.get(
        config.head.kind, "Model"
    )
    found: dict[str, Any] = {
        "architectures": [prefix + suffix],
        "model_type": model_type,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "num_hidden_layers": stack.layers,
        "hidden_size": stack.width,
        "intermediate_size": stack.mlp.hidden,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.head_width,
        "rms_norm_eps": stack.norm.eps,
        "hidden_act": "silu",
        "tie_word_embeddings": config.tied,
        "dtype": "float32",
    }
    if isinstance(stack.position, c.Rope):
        found["rope_parameters"] = rope.to_hf(stack.position, attention.head_width)
        found["rope_theta"] = stack.position.theta  # read by older versions
    if isinstance(config.head, c.Classifier):
        found |= labels_to_hf(config.head.labels)
    return found | more


def hf_entries(config: c.ModelConfig, block: dict[str, str] = HF_BLOCK) -> list[Entry]:
    """Every tensor under Llama's names; `block` maps our parts of a block to theirs."""
    prefix = "" if isinstance(config.head, c.NoHead) else "model."
    found = [same(f"{prefix}embed_tokens.weight", "embed.weight")]
    found += block_entries(config, f"{prefix}layers", block)
    found.append(same(f"{prefix}norm.weight", "decoder.norm.weight"))
    if isinstance(config.head, c.LanguageHead) and not config.tied:
        found.append(same("lm_head.weight", "head.weight"))
    if isinstance(config.head, c.Classifier):
        found.append(same("score.weight", "head.out.weight"))
    return found


def gguf_entries(config: c.ModelConfig, block: dict[str, str] = GGUF_BLOCK) -> list[Entry]:
    """Every tensor under the names of GGUF."""
    found = [same("token_embd.weight", "embed.weight")]
    found += block_entries(config, "blk", block)
    found.append(same("output_norm.weight", "decoder.norm.weight"))
    return found if config.tied else [*found, same("output.weight", "head.weight")]


def block_entries(config: c.ModelConfig, layers: str, block: dict[str, str]) -> list[Entry]:
    """Weights and biases of all blocks that a decoder of these settings has."""
    stack = config.last_stack
    bias = stack.attention.bias
    found = []
    for i in range(stack.layers):
        for ours, theirs in block.items():
            if ours.endswith(("q_norm", "k_norm")) and stack.attention.qk_norm is None:
                continue
            parts = ["weight"]
            projection = ours.rpartition(".")[2]
            if (bias == "all" and projection in "qkvo") or (bias == "qkv" and projection in "qkv"):
                parts.append("bias")
            for part in parts:
                found.append(same(f"{layers}.{i}.{theirs}.{part}", f"decoder.blocks.{i}.{ours}.{part}"))
    return found


def gguf_metadata(config: c.ModelConfig, architecture: str) -> dict[str, Any]:
    """The keys that all decoders have, each as `<architecture>.<key>`."""
    stack, attention = config.last_stack, config.last_stack.attention
    found: dict[str, Any] = {
        "block_count": stack.layers,
        "context_length": config.context,
        "embedding_length": stack.width,
        "feed_forward_length": stack.mlp.hidden,
        "attention.head_count": attention.heads,
        "attention.head_count_kv": attention.kv_heads,
        "attention.key_length": attention.head_width,
        "attention.value_length": attention.head_width,
        "vocab_size": config.vocabulary,
    }
    kind = "layer_norm_epsilon" if isinstance(stack.norm, c.LayerNorm) else "layer_norm_rms_epsilon"
    found[f"attention.{kind}"] = stack.norm.eps
    if isinstance(stack.position, c.Rope):
        found["rope.freq_base"] = stack.position.theta
        found["rope.dimension_count"] = stack.position.width or attention.head_width
    return {f"{architecture}.{key}": value for key, value in found.items()}
