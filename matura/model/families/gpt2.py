"""GPT-2: trained positions, LayerNorm, GELU by its tanh form, biases everywhere; queries, keys and values in one.

(Radford et al. 2019, "Language Models are Unsupervised Multitask Learners".)
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.families import decoder, decoder_gguf
from matura.model.families.family import Family, Settings, expect, rounded, same_settings
from matura.model.families.weights import Entry, same, stacked, transposed

HF_BLOCK = {
    "norms.0": "ln_1",
    "mixers.0": "attn.c_attn",
    "mixers.0.o": "attn.c_proj",
    "norms.1": "ln_2",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
GGUF_BLOCK = {
    "norms.0": "attn_norm",
    "mixers.0": "attn_qkv",
    "mixers.0.o": "attn_output",
    "norms.1": "ffn_norm",
    "mlp.up": "ffn_up",
    "mlp.down": "ffn_down",
}


def from_hf(hf: Settings, names: Collection[str]) -> c.ModelConfig:
    """`config.json` to our settings."""
    expect(hf, scale_attn_by_inverse_layer_idx=(False, None), add_cross_attention=(False, None))
    dropout, embedding_dropout = hf.get("resid_pdrop", 0.1), hf.get("embd_pdrop", 0.1)
    if dropout != embedding_dropout:
        raise FormatError(
            f"config.json: embd_pdrop={embedding_dropout} beside resid_pdrop={dropout} is not supported; "
            "set both to the same"
        )
    heads, width = hf["n_head"], hf["n_embd"]
    attention = c.Attention(
        heads=heads,
        kv_heads=heads,
        head_width=width // heads,
        bias="all",
        scale=None if hf.get("scale_attn_weights", True) else 1.0,
        dropout=hf.get("attn_pdrop", 0.1),
    )
    stack = c.StackConfig(
        layers=hf["n_layer"],
        width=width,
        attention=attention,
        mlp=_mlp(hf.get("activation_function", "gelu_new"), hf.get("n_inner") or 4 * width),
        norm=c.LayerNorm(eps=hf.get("layer_norm_epsilon", 1e-5)),
        position=c.Learned(),
        dropout=dropout,
    )
    return c.ModelConfig(
        vocabulary=hf["vocab_size"],
        context=hf["n_positions"],
        decoder=stack,
        head=decoder.head_from_hf(hf, tied=True),
        family="gpt2",
    )


def _mlp(activation: str, hidden: int) -> c.MLP:
    match activation:
        case "gelu_new" | "gelu_pytorch_tanh":
            return c.GELU(hidden=hidden, approximate=True)
        case "gelu":
            return c.GELU(hidden=hidden)
        case "relu":
            return c.ReLU(hidden=hidden)
    raise FormatError(
        f"config.json: activation_function={activation!r} is not supported; "
        "gelu_new, gelu_pytorch_tanh, gelu and relu are"
    )


def to_hf(config: c.ModelConfig) -> dict[str, Any]:
    """Our settings to `config.json`. Raises FormatError for what GPT-2 does not have."""
    stack, attention = config.last_stack, config.last_stack.attention
    exact = isinstance(stack.mlp, c.GELU) and not stack.mlp.approximate
    language = "LMHeadModel"
    found = decoder.head_to_hf(config, "GPT2", language) | {
        "model_type": "gpt2",
        "vocab_size": config.vocabulary,
        "n_positions": config.context,
        "n_ctx": config.context,  # read by older versions
        "n_layer": stack.layers,
        "n_embd": stack.width,
        "n_head": attention.heads,
        "n_inner": stack.mlp.hidden,
        "activation_function": "relu" if stack.mlp.kind == "relu" else "gelu" if exact else "gelu_new",
        "layer_norm_epsilon": stack.norm.eps,
        "scale_attn_weights": attention.scale is None,
        "resid_pdrop": stack.dropout,
        "embd_pdrop": stack.dropout,
        "attn_pdrop": attention.dropout,
        "dtype": "float32",
    }
    same_settings(config, from_hf(found, ()))
    return found


def entries(config: c.ModelConfig) -> list[Entry]:
    """Hugging Face's tensors, with and without `transformer.` before their names; matrices are transposed."""
    body = [
        same("wte.weight", "embed.weight"),
        same("wpe.weight", "decoder.positions.weight"),
        *_blocks(config, "h", HF_BLOCK, transpose=True),
        *(same(f"ln_f.{part}", f"decoder.norm.{part}") for part in ("weight", "bias")),
    ]
    inside, plain = ("", "transformer.") if isinstance(config.head, c.NoHead) else ("transformer.", "")
    named = [replace(entry, theirs=inside + entry.theirs, also=(plain + entry.theirs,)) for entry in body]
    return named + decoder.head_entries(config)


def _blocks(config: c.ModelConfig, layers: str, block: dict[str, str], *, transpose: bool) -> list[Entry]:
    attention = config.last_stack.attention
    inner, inner_kv = (n * attention.head_width for n in (attention.heads, attention.kv_heads))
    found = []
    for i in range(config.last_stack.layers):
        for ours, theirs in block.items():
            for part in ("weight", "bias"):
                matrix = part == "weight" and "norms" not in ours
                name, into = f"{layers}.{i}.{theirs}.{part}", f"decoder.blocks.{i}.{ours}"
                if ours == "mixers.0":
                    three = [f"{into}.{projection}.{part}" for projection in "qkv"]
                    found.append(
                        stacked(name, three, (inner, inner_kv, inner_kv), transpose=transpose and matrix)
                    )
                else:
                    found.append((transposed if transpose and matrix else same)(name, f"{into}.{part}"))
    return found


def from_gguf(
    metadata: Settings, shapes: decoder_gguf.Shapes, rope_freqs: Sequence[float] | None = None
) -> c.ModelConfig:
    """GGUF metadata (`gpt2.*` keys) to our settings."""
    return decoder_gguf.model(
        metadata,
        shapes,
        "gpt2",
        attention=decoder_gguf.attention(metadata, "gpt2", bias="all"),
        mlp=c.GELU(hidden=metadata["gpt2.feed_forward_length"], approximate=True),
        norm=c.LayerNorm(eps=rounded(metadata["gpt2.attention.layer_norm_epsilon"])),
        position=c.Learned(),
    )


def gguf_entries(config: c.ModelConfig) -> list[Entry]:
    """GGUF's tensors."""
    return [
        *decoder_gguf.outside(config),
        same("output_norm.bias", "decoder.norm.bias"),
        same("position_embd.weight", "decoder.positions.weight"),
        *_blocks(config, "blk", GGUF_BLOCK, transpose=False),
    ]


GPT2 = Family(
    name="gpt2",
    model_types=("gpt2",),
    from_hf=from_hf,
    to_hf=to_hf,
    entries=entries,
    gguf=(decoder_gguf.layout("gpt2", from_gguf, gguf_entries),),
    ignored=(".attn.bias", ".attn.masked_bias"),  # the causal mask
)
