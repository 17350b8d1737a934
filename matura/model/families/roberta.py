"""RoBERTa and XLM-RoBERTa: BERT's build, with positions counted from 2 and a classifier of its own.

arXiv:1907.11692, arXiv:1911.02116. The first two rows of the stored positions belong to padding and are never used.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import partial
from typing import Any

from matura.model import config as c
from matura.model.families import bert, encoder
from matura.model.families.family import Family, Settings, expect, same_settings
from matura.model.families.weights import Entry

SKIPPED = 2
"""Rows before the position of the first token: the id of the padding token (1) and one more."""

LAYOUT = encoder.Layout(
    prefix="roberta.",
    body=bert.BODY,
    layers="encoder.layer",
    block=bert.BLOCK,
    language={"dense": "lm_head.dense", "norm": "lm_head.layer_norm"},
    output="lm_head.decoder",
    output_bias="lm_head.bias",
    classifier={"dense": "classifier.dense", "out": "classifier.out_proj"},
    pooler={"dense": "pooler.dense"},
    skipped=SKIPPED,
)


def from_hf(hf: Settings, names: Collection[str], family: str = "roberta") -> c.ModelConfig:
    """`config.json` to our settings; the tensors say whether there is a pooler."""
    expect(hf, pad_token_id=1)  # positions are counted from here on
    stack = encoder.stack_from_hf(hf)
    language = c.LanguageHead(bias=True, transform=stack.norm)
    return c.ModelConfig(
        vocabulary=hf["vocab_size"],
        context=hf["max_position_embeddings"] - SKIPPED,
        encoder=stack,
        head=encoder.head_from_hf(hf, names, language=language, hidden="tanh"),
        family=family,
    )


def to_hf(config: c.ModelConfig, prefix: str = "Roberta") -> dict[str, Any]:
    """Our settings to `config.json`. Raises FormatError for what RoBERTa does not have."""
    found = {"model_type": config.family} | encoder.head_to_hf(config, prefix) | encoder.stack_to_hf(config)
    found |= {"max_position_embeddings": config.context + SKIPPED, "pad_token_id": 1}
    same_settings(config, from_hf(found, {entry.theirs for entry in entries(config)}, config.family))
    return found


def entries(config: c.ModelConfig) -> list[Entry]:
    """Hugging Face's tensors."""
    return encoder.entries(config, LAYOUT)


IGNORED = (
    "embeddings.position_ids",
    "pooler.dense.weight",
    "pooler.dense.bias",
    "lm_head.bias",
    "lm_head.decoder.weight",
    "lm_head.decoder.bias",
)

ROBERTA = Family(
    name="roberta",
    model_types=("roberta",),
    from_hf=from_hf,
    to_hf=to_hf,
    entries=entries,
    ignored=IGNORED,
)

XLM_ROBERTA = Family(
    name="xlm-roberta",
    model_types=("xlm-roberta",),
    from_hf=partial(from_hf, family="xlm-roberta"),
    to_hf=partial(to_hf, prefix="XLMRoberta"),
    entries=entries,
    ignored=IGNORED,
)
