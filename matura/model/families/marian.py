"""The Transformer of 2017 as the Marian project trains it: sinusoidal positions, LayerNorm after every part.

arXiv:1706.03762, arXiv:1804.00344 (the opus-mt translators). Encoder and decoder share one vocabulary and embedding.
Their position vectors are computed, so a file's own copies are not read; transformers computes them too.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.families.family import Family, Settings, expect, same_settings
from matura.model.families.weights import Entry, row, same

MLPS: dict[str, Callable[[int], c.MLP]] = {
    "relu": lambda hidden: c.ReLU(hidden=hidden),
    "gelu": lambda hidden: c.GELU(hidden=hidden),
    "gelu_new": lambda hidden: c.GELU(hidden=hidden, approximate=True),
    "swish": lambda hidden: c.SiLU(hidden=hidden),
    "silu": lambda hidden: c.SiLU(hidden=hidden),
}
"""`activation_function` -> the MLP."""

ATTENTION = {"q": "q_proj", "k": "k_proj", "v": "v_proj", "o": "out_proj"}
ARCHITECTURES = ("MarianMTModel", "MarianModel")


def from_hf(hf: Settings, names: Collection[str]) -> c.ModelConfig:
    """`config.json` to our settings; the tensors say whether the output has a bias."""
    named = (hf.get("architectures") or ARCHITECTURES)[0]
    if named not in ARCHITECTURES:
        known = " and ".join(ARCHITECTURES)
        raise FormatError(f"config.json: the architecture {named!r} is not supported; {known} are")
    _refuse(hf)
    width = hf["d_model"]
    head: c.Head = c.NoHead()
    if named == "MarianMTModel":
        head = c.LanguageHead(bias="final_logits_bias" in names)
    return c.ModelConfig(
        vocabulary=hf["vocab_size"],
        context=hf.get("max_position_embeddings", 1024),
        encoder=_stack(hf, "encoder"),
        decoder=_stack(hf, "decoder"),
        head=head,
        embedding_scale=width**0.5 if hf.get("scale_embedding") else 1.0,
        start_id=hf["decoder_start_token_id"],
        family="marian",
    )


def _refuse(hf: Settings) -> None:
    """Settings that other builds of the same project have."""
    expect(
        hf,
        share_encoder_decoder_embeddings=True,
        tie_word_embeddings=True,
        decoder_vocab_size=(hf["vocab_size"], None),
        normalize_before=False,
        normalize_embedding=False,
        add_final_layer_norm=False,
        static_position_embeddings=True,
        activation_dropout=0.0,
        encoder_layerdrop=0.0,
        decoder_layerdrop=0.0,
    )


def _stack(hf: Settings, side: str) -> c.StackConfig:
    width, heads = hf["d_model"], hf[f"{side}_attention_heads"]
    activation = hf.get("activation_function", "gelu")
    expect({"activation_function": activation}, activation_function=tuple(MLPS))
    if width % heads:
        raise FormatError(f"config.json: d_model={width} cannot be cut into {heads} heads")
    return c.StackConfig(
        layers=hf[f"{side}_layers"],
        width=width,
        attention=c.Attention(
            heads=heads,
            kv_heads=heads,
            head_width=width // heads,
            bias="all",
            dropout=hf.get("attention_dropout", 0.0),
        ),
        mlp=MLPS[activation](hf[f"{side}_ffn_dim"]),
        norm=c.LayerNorm(),
        norm_placement="post",
        position=c.Sinusoidal(order="halves"),
        causal=side == "decoder",
        cross=side == "decoder",
        dropout=hf.get("dropout", 0.1),
    )


def to_hf(config: c.ModelConfig) -> dict[str, Any]:
    """Our settings to `config.json`. Raises FormatError for what Marian does not have."""
    if config.encoder is None or config.decoder is None or config.start_id is None:
        raise FormatError("Marian has an encoder, a decoder and a start token; this model lacks one of them")
    encoder, language = config.encoder, isinstance(config.head, c.LanguageHead)
    found: dict[str, Any] = {
        "architectures": ["MarianMTModel" if language else "MarianModel"],
        "model_type": "marian",
        "vocab_size": config.vocabulary,
        "decoder_vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "d_model": encoder.width,
        "activation_function": _activation(encoder.mlp),
        "attention_dropout": encoder.attention.dropout,
        "dropout": encoder.dropout,
        "scale_embedding": config.embedding_scale != 1,
        "share_encoder_decoder_embeddings": True,
        "static_position_embeddings": True,
        "tie_word_embeddings": True,
        "decoder_start_token_id": config.start_id,
        "pad_token_id": config.start_id,  # Marian opens with its padding token
        "is_encoder_decoder": True,
        "dtype": "float32",
    }
    for side, stack in (("encoder", encoder), ("decoder", config.decoder)):
        found |= {
            f"{side}_layers": stack.layers,
            f"{side}_attention_heads": stack.attention.heads,
            f"{side}_ffn_dim": stack.mlp.hidden,
        }
    same_settings(config, from_hf(found, {entry.theirs for entry in entries(config)}))
    return found


def _activation(mlp: c.MLP) -> str:
    for name, build in MLPS.items():
        if build(mlp.hidden) == mlp:
            return name
    raise FormatError(f"Marian has no place for this MLP: {mlp!r}")


def entries(config: c.ModelConfig) -> list[Entry]:
    """Hugging Face's tensors."""
    prefix = "model." if isinstance(config.head, c.LanguageHead) else ""
    found = [same(f"{prefix}shared.weight", "embed.weight")]
    for side, stack in (("encoder", config.encoder), ("decoder", config.decoder)):
        for i in range(stack.layers if stack else 0):
            found += _block(f"{prefix}{side}.layers.{i}", f"{side}.blocks.{i}", cross=side == "decoder")
    if isinstance(config.head, c.LanguageHead) and config.head.bias:
        found.append(row("final_logits_bias", "head.bias"))
    return found


def _block(theirs: str, ours: str, *, cross: bool) -> list[Entry]:
    attentions = ["self_attn", "encoder_attn"] if cross else ["self_attn"]
    names = {"mlp.up": "fc1", "mlp.down": "fc2", f"norms.{len(attentions)}": "final_layer_norm"}
    for n, attention in enumerate(attentions):
        names[f"norms.{n}"] = f"{attention}_layer_norm"
        names |= {f"mixers.{n}.{part}": f"{attention}.{name}" for part, name in ATTENTION.items()}
    return [
        same(f"{theirs}.{their}.{kind}", f"{ours}.{our}.{kind}")
        for our, their in names.items()
        for kind in ("weight", "bias")
    ]


MARIAN = Family(
    name="marian",
    model_types=("marian",),
    from_hf=from_hf,
    to_hf=to_hf,
    entries=entries,
    ignored=("embed_positions.weight", "encoder.embed_tokens.weight", "decoder.embed_tokens.weight"),
)
