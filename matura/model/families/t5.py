"""T5, T5 v1.1 and Flan-T5: encoder and decoder with relative positions as biases of the scores.

arXiv:1910.10683, arXiv:2002.05202 (v1.1), arXiv:2210.11416 (Flan). The dropout inside their MLPs is not made.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.families.family import Family, Settings, expect, same_settings
from matura.model.families.weights import Entry, same

CONTEXT = 512
"""Length of pre-training. Relative positions have no end, so this is no limit."""

MLPS: dict[str, Callable[[int], c.MLP]] = {
    "relu": lambda hidden: c.ReLU(hidden=hidden, bias=False),
    "gelu": lambda hidden: c.GELU(hidden=hidden, bias=False),
    "gelu_new": lambda hidden: c.GELU(hidden=hidden, bias=False, approximate=True),
    "gated-gelu": lambda hidden: c.GeGLU(hidden=hidden),
    "gated-silu": lambda hidden: c.SwiGLU(hidden=hidden),
}
"""`feed_forward_proj` -> the MLP."""

ARCHITECTURES = ("T5ForConditionalGeneration", "T5WithLMHeadModel", "T5Model", "T5EncoderModel")


def from_hf(hf: Settings, names: Collection[str]) -> c.ModelConfig:
    """`config.json` to our settings; the tensors say whether the output matrix is the embedding."""
    named = (hf.get("architectures") or ARCHITECTURES)[0]
    if named not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise FormatError(f"config.json: the architecture {named!r} is not supported; known: {known}")
    decoder = named != "T5EncoderModel"
    layers = hf["num_layers"]
    start = hf.get("decoder_start_token_id")
    return c.ModelConfig(
        vocabulary=hf["vocab_size"],
        context=hf.get("n_positions") or CONTEXT,
        encoder=_stack(hf, layers, causal=False),
        decoder=_stack(hf, hf.get("num_decoder_layers") or layers, causal=True) if decoder else None,
        head=_head(hf, names) if named in ARCHITECTURES[:2] else c.NoHead(),
        start_id=(hf.get("pad_token_id", 0) if start is None else start) if decoder else None,
        family="t5",
    )


def _stack(hf: Settings, layers: int, *, causal: bool) -> c.StackConfig:
    feed = hf.get("feed_forward_proj", "relu")
    expect({"feed_forward_proj": feed}, feed_forward_proj=tuple(MLPS))
    dropout = hf.get("dropout_rate", 0.1)
    return c.StackConfig(
        layers=layers,
        width=hf["d_model"],
        attention=c.Attention(
            heads=hf["num_heads"], kv_heads=hf["num_heads"], head_width=hf["d_kv"], scale=1.0, dropout=dropout
        ),
        mlp=MLPS[feed](hf["d_ff"]),
        norm=c.RMSNorm(eps=hf.get("layer_norm_epsilon", 1e-6)),
        position=c.RelativeBias(
            buckets=hf.get("relative_attention_num_buckets", 32),
            max_distance=hf.get("relative_attention_max_distance", 128),
        ),
        causal=causal,
        cross=causal,
        dropout=dropout,
    )


def _head(hf: Settings, names: Collection[str]) -> c.LanguageHead:
    """What the head reads is scaled in T5, not in v1.1. Older files say so by whether the embedding is tied."""
    scaled = hf.get("scale_decoder_outputs", hf.get("tie_word_embeddings") is not False)
    return c.LanguageHead(tied="lm_head.weight" not in names, scale=hf["d_model"] ** -0.5 if scaled else 1.0)


def to_hf(config: c.ModelConfig) -> dict[str, Any]:
    """Our settings to `config.json`. Raises FormatError for what T5 does not have."""
    if config.encoder is None:
        raise FormatError("T5 has an encoder; this model has none")
    stack, head = config.encoder, config.head
    position = stack.position if isinstance(stack.position, c.RelativeBias) else c.RelativeBias()
    architecture = "T5ForConditionalGeneration" if isinstance(head, c.LanguageHead) else "T5Model"
    found = {
        "architectures": [architecture if config.decoder else "T5EncoderModel"],
        "model_type": "t5",
        "vocab_size": config.vocabulary,
        "n_positions": config.context,
        "num_layers": stack.layers,
        "d_model": stack.width,
        "num_heads": stack.attention.heads,
        "d_kv": stack.attention.head_width,
        "d_ff": stack.mlp.hidden,
        "feed_forward_proj": _feed(stack.mlp),
        "layer_norm_epsilon": stack.norm.eps,
        "relative_attention_num_buckets": position.buckets,
        "relative_attention_max_distance": position.max_distance,
        "dropout_rate": stack.dropout,
        "is_encoder_decoder": config.decoder is not None,
        "dtype": "float32",
    }
    if config.decoder:
        found |= {"num_decoder_layers": config.decoder.layers, "decoder_start_token_id": config.start_id}
    if isinstance(head, c.LanguageHead):
        found |= {"tie_word_embeddings": head.tied, "scale_decoder_outputs": head.scale != 1}
    same_settings(config, from_hf(found, {entry.theirs for entry in entries(config)}))
    return found


def _feed(mlp: c.MLP) -> str:
    for name, build in MLPS.items():
        if build(mlp.hidden) == mlp:
            return name
    raise FormatError(f"T5 has no place for this MLP: {mlp!r}")


def entries(config: c.ModelConfig) -> list[Entry]:
    """Hugging Face's tensors. The parts of a block are numbered: attention, attention to the memory, MLP."""
    found = [replace(same("shared.weight", "embed.weight"), also=("encoder.embed_tokens.weight",))]
    for side, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        if stack is None:
            continue
        for i in range(stack.layers):
            found += _block(stack, f"{side}.block.{i}.layer", f"{side}.blocks.{i}")
        found.append(same(f"{side}.final_layer_norm.weight", f"{side}.norm.weight"))
        bias = f"{side}.block.0.layer.0.SelfAttention.relative_attention_bias.weight"
        found.append(same(bias, f"{side}.bias.weight"))
    if isinstance(config.head, c.LanguageHead) and not config.tied:
        found.append(same("lm_head.weight", "head.weight"))
    return found


def _block(stack: c.StackConfig, theirs: str, ours: str) -> list[Entry]:
    parts = ["SelfAttention", "EncDecAttention"] if stack.cross else ["SelfAttention"]
    found = [
        same(f"{theirs}.{n}.{part}.{name}.weight", f"{ours}.mixers.{n}.{name}.weight")
        for n, part in enumerate(parts)
        for name in "qkvo"
    ]
    gated = isinstance(stack.mlp, c.GeGLU | c.SwiGLU)
    names = {"gate": "wi_0", "up": "wi_1", "down": "wo"} if gated else {"up": "wi", "down": "wo"}
    mlp = f"{theirs}.{len(parts)}.DenseReluDense"
    found += [same(f"{mlp}.{name}.weight", f"{ours}.mlp.{part}.weight") for part, name in names.items()]
    norms = range(len(parts) + 1)
    return found + [same(f"{theirs}.{n}.layer_norm.weight", f"{ours}.norms.{n}.weight") for n in norms]


T5 = Family(
    name="t5",
    model_types=("t5",),
    from_hf=from_hf,
    to_hf=to_hf,
    entries=entries,
    ignored=(
        "encoder.embed_tokens.weight",  # copies of the shared embedding
        "decoder.embed_tokens.weight",
        "EncDecAttention.relative_attention_bias.weight",  # in the first files, never used
    ),
)
