"""What the families of today's decoders share: Llama's names of settings and tensors in Hugging Face folders."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, Literal

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.families import rope
from matura.model.families.family import Settings, same_settings
from matura.model.families.weights import Entry, same

BLOCK = {
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
"""Our part of a block -> theirs."""

MOST_LAYERS = 2_000
"""More are no model; each layer that a file claims would cost time before its tensors are missed."""
MOST_LABELS = 100_000

FromHf = Callable[[Settings, Collection[str]], c.ModelConfig]
MakeEntry = Callable[[str, str], Entry]


def attention_from_hf(
    hf: Settings,
    *,
    bias: Literal["none", "qkv", "all"] = "none",
    kv_heads: int | None = None,
    head_width: int | None = None,
    **more: Any,
) -> c.Attention:
    """Heads as Llama's settings name them; `kv_heads` and `head_width` are what a missing setting means."""
    heads = hf["num_attention_heads"]
    return c.Attention(
        heads=heads,
        kv_heads=hf.get("num_key_value_heads", kv_heads) or heads,
        head_width=hf.get("head_dim", head_width) or hf["hidden_size"] // heads,
        bias="all" if hf.get("attention_bias") else bias,
        dropout=hf.get("attention_dropout") or 0.0,
        **more,
    )


def local_from_hf(
    hf: Settings, window: int | None, is_local: Callable[[int], bool], position: c.Rope | None = None
) -> c.Local | None:
    """Layers with a sliding window: `layer_types`, or where they are missing the rule `is_local`."""
    layers, types = hf["num_hidden_layers"], hf.get("layer_types")
    if types is None:
        return local_layers(layers, window, is_local, position)
    if len(types) != layers:
        raise FormatError(f"config.json: layer_types has {len(types)} entries for {layers} layers")
    for kind in types:
        if kind not in ("sliding_attention", "full_attention"):
            raise FormatError(
                f"config.json: layer_types {kind!r} is not supported; sliding_attention and full_attention are"
            )
    if not window and "sliding_attention" in types:
        raise FormatError("config.json: layer_types names sliding_attention, but sliding_window is not set")
    return local_layers(layers, window, lambda i: types[i] == "sliding_attention", position)


def local_layers(
    layers: int, window: int | None, is_local: Callable[[int], bool], position: c.Rope | None = None
) -> c.Local | None:
    """The layers that `is_local` chooses, None when there are none or no window."""
    if layers > MOST_LAYERS:
        raise FormatError(f"its settings say {layers} layers; at most {MOST_LAYERS} are supported")
    chosen = tuple(i for i in range(layers) if window and is_local(i))
    return c.Local(window=window, layers=chosen, position=position) if window and chosen else None


def layer_types(stack: c.StackConfig) -> list[str]:
    """`layer_types` as transformers writes them."""
    local = stack.local.layers if stack.local else ()
    return ["sliding_attention" if i in local else "full_attention" for i in range(stack.layers)]


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
    if named.endswith("Model") and not named.endswith("HeadsModel"):
        return c.NoHead()
    raise FormatError(
        f"config.json: the architecture {named!r} is not supported; "
        "ForCausalLM, ForSequenceClassification and Model are"
    )


def labels_from_hf(hf: Settings) -> tuple[str, ...]:
    """Names of the classes in order."""
    count = hf.get("num_labels", 2)
    if count > MOST_LABELS:
        raise FormatError(f"config.json: num_labels is {count}; at most {MOST_LABELS} are supported")
    given = hf.get("id2label") or {i: f"LABEL_{i}" for i in range(count)}
    names = {int(i): str(name) for i, name in given.items()}
    if sorted(names) != list(range(len(names))):
        raise FormatError("config.json: id2label must name the classes 0, 1, ... without a gap")
    return tuple(names[i] for i in range(len(names)))


def labels_to_hf(labels: tuple[str, ...]) -> dict[str, Any]:
    """`id2label` and its inverse."""
    return {
        "id2label": {str(i): name for i, name in enumerate(labels)},
        "label2id": {name: i for i, name in enumerate(labels)},
    }


def head_to_hf(config: c.ModelConfig, prefix: str, language: str = "ForCausalLM") -> dict[str, Any]:
    """`architectures` and the labels; `prefix` begins the class names of transformers."""
    suffix = {"language": language, "classifier": "ForSequenceClassification"}.get(config.head.kind, "Model")
    labels = labels_to_hf(config.head.labels) if isinstance(config.head, c.Classifier) else {}
    return {"architectures": [prefix + suffix], "tie_word_embeddings": config.tied} | labels


def model_to_hf(
    config: c.ModelConfig, model_type: str, prefix: str, from_hf: FromHf, **more: Any
) -> dict[str, Any]:
    """`config.json` in Llama's terms with `more`. Raises FormatError when `from_hf` would make another model of it."""
    stack, attention = config.last_stack, config.last_stack.attention
    found = head_to_hf(config, prefix) | {
        "model_type": model_type,
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "num_hidden_layers": stack.layers,
        "hidden_size": stack.width,
        "intermediate_size": stack.mlp.hidden,
        "num_attention_heads": attention.heads,
        "num_key_value_heads": attention.kv_heads,
        "head_dim": attention.head_width,
        "attention_dropout": attention.dropout,
        "rms_norm_eps": stack.norm.eps,
        "hidden_act": "silu",
        "dtype": "float32",
    }
    if isinstance(stack.position, c.Rope):
        found["rope_parameters"] = rope.to_hf(stack.position, attention.head_width)
        found["rope_theta"] = stack.position.theta  # read by older versions
    found |= more
    same_settings(config, from_hf(found, ()))
    return found


def entries(config: c.ModelConfig, block: dict[str, str] = BLOCK, norm: MakeEntry = same) -> list[Entry]:
    """Every tensor under Llama's names; `block` maps our parts of a block to theirs, `norm` makes a norm's entry."""
    prefix = "" if isinstance(config.head, c.NoHead) else "model."
    found = [same(f"{prefix}embed_tokens.weight", "embed.weight")]
    found += block_entries(config, f"{prefix}layers", block, norm)
    found.append(norm(f"{prefix}norm.weight", "decoder.norm.weight"))
    return found + head_entries(config)


def head_entries(config: c.ModelConfig) -> list[Entry]:
    """The output matrix of a language model whose own it is, or of a classifier."""
    if isinstance(config.head, c.Classifier):
        return [same("score.weight", "head.out.weight")]
    untied = isinstance(config.head, c.LanguageHead) and not config.tied
    return [same("lm_head.weight", "head.weight")] if untied else []


def block_entries(
    config: c.ModelConfig, layers: str, block: dict[str, str], norm: MakeEntry = same
) -> list[Entry]:
    """Weights and biases of all blocks that a decoder of these settings has."""
    stack = config.last_stack
    bias = stack.attention.bias
    found = []
    for i in range(stack.layers):
        for ours, theirs in block.items():
            if ours.endswith(("q_norm", "k_norm")) and stack.attention.qk_norm is None:
                continue
            make = norm if "norm" in ours else same
            found.append(make(f"{layers}.{i}.{theirs}.weight", f"decoder.blocks.{i}.{ours}.weight"))
            projection = ours.rpartition(".")[2]
            if (bias == "all" and projection in "qkvo") or (bias == "qkv" and projection in "qkv"):
                found.append(same(f"{layers}.{i}.{theirs}.bias", f"decoder.blocks.{i}.{ours}.bias"))
    return found
