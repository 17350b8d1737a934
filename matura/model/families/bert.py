"""BERT and its relatives of the same build (MiniLM): trained positions, segments, LayerNorm after every part.

arXiv:1810.04805. Masked language models, text classifiers, and encoders with or without a pooler.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from matura.model import config as c
from matura.model.families import encoder
from matura.model.families.family import Family, Settings, same_settings
from matura.model.families.weights import Entry

BLOCK = {
    "mixers.0.q": "attention.self.query",
    "mixers.0.k": "attention.self.key",
    "mixers.0.v": "attention.self.value",
    "mixers.0.o": "attention.output.dense",
    "norms.0": "attention.output.LayerNorm",
    "mlp.up": "intermediate.dense",
    "mlp.down": "output.dense",
    "norms.1": "output.LayerNorm",
}
"""Our part of a block -> Hugging Face's."""

BODY = {
    "embed.weight": "embeddings.word_embeddings.weight",
    "encoder.positions.weight": "embeddings.position_embeddings.weight",
    "encoder.segments.weight": "embeddings.token_type_embeddings.weight",
    "encoder.embedding_norm.weight": "embeddings.LayerNorm.weight",
    "encoder.embedding_norm.bias": "embeddings.LayerNorm.bias",
}
"""Our tensors before the blocks -> Hugging Face's."""

LAYOUT = encoder.Layout(
    prefix="bert.",
    body=BODY,
    layers="encoder.layer",
    block=BLOCK,
    language={"dense": "cls.predictions.transform.dense", "norm": "cls.predictions.transform.LayerNorm"},
    output="cls.predictions.decoder",
    output_bias="cls.predictions.bias",
    classifier={"dense": "bert.pooler.dense", "out": "classifier"},
    pooler={"dense": "pooler.dense"},
)


def from_hf(hf: Settings, names: Collection[str]) -> c.ModelConfig:
    """`config.json` to our settings; the tensors say whether there is a pooler."""
    stack = encoder.stack_from_hf(hf)
    activation = encoder.activation_from_hf(hf.get("hidden_act", "gelu"), "hidden_act")
    language = c.LanguageHead(bias=True, transform=stack.norm, activation=activation)
    return c.ModelConfig(
        vocabulary=hf["vocab_size"],
        context=hf["max_position_embeddings"],
        encoder=stack,
        head=encoder.head_from_hf(hf, names, language=language, hidden="tanh"),
        family="bert",
    )


def to_hf(config: c.ModelConfig) -> dict[str, Any]:
    """Our settings to `config.json`. Raises FormatError for what BERT does not have."""
    found = {"model_type": "bert"} | encoder.head_to_hf(config, "Bert") | encoder.stack_to_hf(config)
    same_settings(config, from_hf(found, {entry.theirs for entry in entries(config)}))
    return found


def entries(config: c.ModelConfig) -> list[Entry]:
    """Hugging Face's tensors."""
    return encoder.entries(config, LAYOUT)


BERT = Family(
    name="bert",
    model_types=("bert",),
    from_hf=from_hf,
    to_hf=to_hf,
    entries=entries,
    ignored=(
        "embeddings.position_ids",
        "pooler.dense.weight",
        "pooler.dense.bias",
        "cls.seq_relationship",  # whether two sentences follow each other: only pre-training asks
        "cls.predictions.bias",
        "cls.predictions.decoder.weight",
        "cls.predictions.decoder.bias",
    ),
)
