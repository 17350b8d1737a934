"""DistilBERT: BERT without segments and pooler, under names of its own (arXiv:1910.01108)."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from matura.model import config as c
from matura.model.families import bert, encoder
from matura.model.families.family import Family, Settings, same_settings
from matura.model.families.weights import Entry

EPS = 1e-12
"""Of every norm; no setting says so."""

LAYOUT = encoder.Layout(
    prefix="distilbert.",
    body={ours: theirs for ours, theirs in bert.BODY.items() if ours != "encoder.segments.weight"},
    layers="transformer.layer",
    block={
        "mixers.0.q": "attention.q_lin",
        "mixers.0.k": "attention.k_lin",
        "mixers.0.v": "attention.v_lin",
        "mixers.0.o": "attention.out_lin",
        "norms.0": "sa_layer_norm",
        "mlp.up": "ffn.lin1",
        "mlp.down": "ffn.lin2",
        "norms.1": "output_layer_norm",
    },
    language={"dense": "vocab_transform", "norm": "vocab_layer_norm"},
    output="vocab_projector",
    output_bias="vocab_projector.bias",
    classifier={"dense": "pre_classifier", "out": "classifier"},
    pooler={},
)


def from_hf(hf: Settings, names: Collection[str]) -> c.ModelConfig:
    """`config.json` to our settings. (`sinusoidal_pos_embds` only says how the stored positions began.)"""
    activation = encoder.activation_from_hf(hf.get("activation", "gelu"), "activation")
    stack = encoder.stack_of(
        layers=hf["n_layers"],
        width=hf["dim"],
        heads=hf["n_heads"],
        mlp=encoder.mlp_of(activation, hf["hidden_dim"]),
        eps=EPS,
        attention_dropout=hf.get("attention_dropout", 0.1),
        dropout=hf.get("dropout", 0.1),
    )
    language = c.LanguageHead(bias=True, transform=stack.norm, activation=activation)
    return c.ModelConfig(
        vocabulary=hf["vocab_size"],
        context=hf["max_position_embeddings"],
        encoder=stack,
        head=encoder.head_from_hf(hf, names, language=language, hidden="relu"),
        family="distilbert",
    )


def to_hf(config: c.ModelConfig) -> dict[str, Any]:
    """Our settings to `config.json`. Raises FormatError for what DistilBERT does not have."""
    stack = config.last_stack
    found = encoder.head_to_hf(config, "DistilBert") | {
        "model_type": "distilbert",
        "vocab_size": config.vocabulary,
        "max_position_embeddings": config.context,
        "n_layers": stack.layers,
        "dim": stack.width,
        "n_heads": stack.attention.heads,
        "hidden_dim": stack.mlp.hidden,
        "activation": encoder.activation_to_hf(stack.mlp),
        "dropout": stack.dropout,
        "attention_dropout": stack.attention.dropout,
    }
    same_settings(config, from_hf(found, {entry.theirs for entry in entries(config)}))
    return found


def entries(config: c.ModelConfig) -> list[Entry]:
    """Hugging Face's tensors."""
    return encoder.entries(config, LAYOUT)


DISTILBERT = Family(
    name="distilbert",
    model_types=("distilbert",),
    from_hf=from_hf,
    to_hf=to_hf,
    entries=entries,
    ignored=("embeddings.position_ids", "vocab_projector.weight"),
)
