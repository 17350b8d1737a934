"""What the encoder families share: BERT's settings, its heads, and tensors that go by several names."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from matura.core.errors import FormatError
from matura.model import config as c
from matura.model.families.decoder import labels_from_hf, labels_to_hf
from matura.model.families.family import Settings, expect
from matura.model.families.weights import Entry, after_rows, same

HEADS = {
    "ForMaskedLM": "language",
    "ForPreTraining": "language",
    "ForSequenceClassification": "classifier",
    "Model": "none",
}
"""End of the class name in transformers -> what it has on top."""

ACTIVATIONS: dict[str, Literal["gelu", "gelu_tanh", "relu"]] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
}
"""Name in `config.json` -> ours."""

Names = Mapping[str, str]
"""Our name -> theirs."""


@dataclass(frozen=True)
class Layout:
    """Where a family keeps its tensors.

    `body` names the tensors before the blocks, `block` the parts of a block (each with a weight and a bias) under
    `layers`; all of them are under `prefix` when there is a head. `language`, `classifier` and `pooler` name the parts
    of each head; `output` is the output matrix and `output_bias` the bias that it shares with other parts. The first
    `skipped` rows of the positions are never used.
    """

    prefix: str
    body: Names
    layers: str
    block: Names
    language: Names
    output: str
    output_bias: str
    classifier: Names
    pooler: Names
    skipped: int = 0


def activation_from_hf(name: Any, key: str) -> Literal["gelu", "gelu_tanh", "relu"]:
    """The activation that `config.json` names. Raises FormatError."""
    if name not in ACTIVATIONS:
        raise FormatError(f"config.json: {key}={name!r} is not supported; known: {', '.join(ACTIVATIONS)}")
    return ACTIVATIONS[name]


def activation_to_hf(mlp: c.MLP) -> str:
    """The name of an MLP's activation in `config.json`."""
    if isinstance(mlp, c.GELU):
        return "gelu_new" if mlp.approximate else "gelu"
    return mlp.kind


def mlp_of(activation: Literal["gelu", "gelu_tanh", "relu"], hidden: int) -> c.GELU | c.ReLU:
    """The MLP of a plain activation, with biases."""
    if activation == "relu":
        return c.ReLU(hidden=hidden)
    return c.GELU(hidden=hidden, approximate=activation == "gelu_tanh")


def stack_of(
    *, layers: int, width: int, heads: int, mlp: c.MLP, eps: float, attention_dropout: float, **more: Any
) -> c.StackConfig:
    """BERT's encoder: LayerNorm after every part and after the embeddings, trained positions, biases everywhere."""
    if width % heads:
        raise FormatError(f"config.json: a width of {width} cannot be cut into {heads} heads")
    norm = c.LayerNorm(eps=eps)
    return c.StackConfig(
        layers=layers,
        width=width,
        attention=c.Attention(
            heads=heads, kv_heads=heads, head_width=width // heads, bias="all", dropout=attention_dropout
        ),
        mlp=mlp,
        norm=norm,
        norm_placement="post",
        position=c.Learned(),
        embedding_norm=norm,
        causal=False,
        **more,
    )


def stack_from_hf(hf: Settings) -> c.StackConfig:
    """The encoder that BERT's settings describe; what is left out has BERT's own defaults."""
    expect(hf, position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    activation = activation_from_hf(hf.get("hidden_act", "gelu"), "hidden_act")
    return stack_of(
        layers=hf["num_hidden_layers"],
        width=hf["hidden_size"],
        heads=hf["num_attention_heads"],
        mlp=mlp_of(activation, hf["intermediate_size"]),
        eps=hf.get("layer_norm_eps", 1e-12),
        attention_dropout=hf.get("attention_probs_dropout_prob", 0.1),
        dropout=hf.get("hidden_dropout_prob", 0.1),
        segments=hf.get("type_vocab_size", 2),
    )


def stack_to_hf(config: c.ModelConfig) -> dict[str, Any]:
    """The encoder in BERT's settings."""
    stack = config.last_stack
    return {
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "num_hidden_layers": stack.layers,
        "hidden_size": stack.width,
        "intermediate_size": stack.mlp.hidden,
        "num_attention_heads": stack.attention.heads,
        "type_vocab_size": stack.segments,
        "hidden_act": activation_to_hf(stack.mlp),
        "hidden_dropout_prob": stack.dropout,
        "attention_probs_dropout_prob": stack.attention.dropout,
        "layer_norm_eps": stack.norm.eps,
        "position_embedding_type": "absolute",  # read by older versions
    }


def head_from_hf(
    hf: Settings, names: Collection[str], *, language: c.LanguageHead, hidden: Literal["tanh", "relu"]
) -> c.Head:
    """The head that `architectures` names. A model without one has the pooler that its tensors hold, or none."""
    named = (hf.get("architectures") or ["Model"])[0]
    kind = next((kind for end, kind in HEADS.items() if named.endswith(end)), None)
    match kind:
        case "language":
            return language.model_copy(update={"tied": bool(hf.get("tie_word_embeddings", True))})
        case "classifier":
            return c.Classifier(labels=labels_from_hf(hf), pool="first", hidden=hidden)
        case "none":
            return c.Pooler() if any(name.endswith("pooler.dense.weight") for name in names) else c.NoHead()
    raise FormatError(
        f"config.json: the architecture {named!r} is not supported; "
        "ForMaskedLM, ForPreTraining, ForSequenceClassification and Model are"
    )


def head_to_hf(config: c.ModelConfig, prefix: str) -> dict[str, Any]:
    """`architectures` and what belongs to the head; `prefix` begins the class names of transformers."""
    suffix = {"language": "ForMaskedLM", "classifier": "ForSequenceClassification"}
    head = config.head
    found: dict[str, Any] = {
        "architectures": [prefix + suffix.get(head.kind, "Model")],
        "tie_word_embeddings": config.tied or not isinstance(head, c.LanguageHead),
        "dtype": "float32",
    }
    return found | labels_to_hf(head.labels) if isinstance(head, c.Classifier) else found


def entries(config: c.ModelConfig, layout: Layout) -> list[Entry]:
    """Every tensor, under the names that transformers writes, with those that other checkpoints have for it."""
    head = config.head
    body = _body(config, layout) + (_parts(layout.pooler, "head.") if isinstance(head, c.Pooler) else [])
    bare = isinstance(head, c.NoHead | c.Pooler)
    under, other = ("", layout.prefix) if bare else (layout.prefix, "")
    found = [replace(entry, theirs=under + entry.theirs, also=(other + entry.theirs,)) for entry in body]
    if isinstance(head, c.LanguageHead):
        found += _parts(layout.language, "head.") + _output(head, layout)
    if isinstance(head, c.Classifier):
        found += _parts(layout.classifier, "head.")
    return [_old_norm(entry) for entry in found]


def _body(config: c.ModelConfig, layout: Layout) -> list[Entry]:
    stack = config.last_stack
    found = []
    for ours, theirs in layout.body.items():
        if ours == "encoder.positions.weight" and layout.skipped:
            found.append(after_rows(theirs, ours, layout.skipped))
        elif ours != "encoder.segments.weight" or stack.segments:
            found.append(same(theirs, ours))
    for i in range(stack.layers):
        block = {ours: f"{layout.layers}.{i}.{theirs}" for ours, theirs in layout.block.items()}
        found += _parts(block, f"encoder.blocks.{i}.")
    return found


def _parts(names: Names, prefix: str) -> list[Entry]:
    """Weight and bias of every part."""
    kinds = ("weight", "bias")
    return [
        same(f"{theirs}.{kind}", f"{prefix}{ours}.{kind}") for ours, theirs in names.items() for kind in kinds
    ]


def _output(head: c.LanguageHead, layout: Layout) -> list[Entry]:
    """Matrix and bias of the output. The bias may be stored on its own, with the matrix, or both."""
    alone, joined = layout.output_bias, f"{layout.output}.bias"
    if head.tied:
        return [replace(same(alone, "head.bias"), also=(joined,))]
    matrix = same(f"{layout.output}.weight", "head.weight")
    return [matrix, replace(same(joined, "head.bias"), also=(alone,))]


def _old_norm(entry: Entry) -> Entry:
    """BERT's first checkpoints call weight and bias of a norm gamma and beta."""
    names = [name for name in (entry.theirs, *entry.also) if "LayerNorm." in name]
    old = [
        name.replace("LayerNorm.weight", "LayerNorm.gamma").replace("LayerNorm.bias", "LayerNorm.beta")
        for name in names
    ]
    return replace(entry, also=(*entry.also, *old))
