"""Texts to labels, with a model that has a classification head.

Shape suffixes: N texts, L labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from matura.core.errors import MaturaError
from matura.infer.reading import hidden_states
from matura.model import config as c
from matura.model.heads import Classifier
from matura.model.transformer import Transformer

Function = Literal["softmax", "sigmoid", "none"]


def labels(model: Transformer) -> tuple[str, ...]:
    """The names of what the model tells apart. Raises MaturaError for a model without a classification head."""
    if not isinstance(model.config.head, c.Classifier):
        raise MaturaError(
            "this model has no classification head, so it has no labels; take one that was trained to classify"
        )
    return model.config.head.labels


@torch.inference_mode()
def classify(
    model: Transformer, rows: Sequence[Sequence[int]], *, function: Function | None = None, batch: int = 16
) -> Tensor:
    """Scores [N, L] of rows of ids, on the CPU.

    `function` makes scores of logits: by default softmax, and sigmoid where there is one label only.
    """
    names = labels(model)
    head = model.head
    assert isinstance(head, Classifier)
    dtype = torch.promote_types(model.embed.weight.dtype, torch.float32)
    logits_NL = torch.empty(len(rows), len(names), dtype=dtype)
    for indices, hidden_BTD, real_BT in hidden_states(model, rows, batch):
        logits_NL[indices] = head(hidden_BTD, real_BT).to(logits_NL)
    match function or ("softmax" if len(names) > 1 else "sigmoid"):
        case "softmax":
            return logits_NL.softmax(-1)
        case "sigmoid":
            return logits_NL.sigmoid()
        case _:
            return logits_NL
