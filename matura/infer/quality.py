"""Texts scored by a model that tells labels apart: how likely they have one of those that mean keep.

Curation takes it as a filter of quality (`quality.model`), beside the linear classifier that it can learn itself.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from matura.core.config import did_you_mean
from matura.core.errors import ConfigError
from matura.infer.classify import classify, labels
from matura.infer.reading import clipped, longest
from matura.model.transformer import Transformer
from matura.tokenizer.tokenizer import Tokenizer

BATCH = 16
CHARACTERS = 16
"""Of a token at most, of what is read of a text: longer ones are no prose."""
DECIMALS = 5
"""Scores are rounded, for their last bits depend on what else was in a batch."""


@dataclass(frozen=True)
class ModelScores:
    """`scores` are probabilities of the labels `kept` together. Of a text longer than the context its beginning is
    read."""

    model: Transformer
    tokenizer: Tokenizer
    kept: tuple[int, ...]
    about: dict[str, Any]

    def scores(self, texts: Sequence[str]) -> list[float]:
        """From 0 to 1, of each text; an empty one has 0."""
        most = longest(self.model)
        begins = [text if most == sys.maxsize else text[: most * CHARACTERS] for text in texts]
        rows, _ = clipped(self.tokenizer, begins, most)
        read = [i for i, row in enumerate(rows) if row]
        found = [0.0] * len(rows)
        columns = classify(self.model, [rows[i] for i in read], batch=BATCH)[:, list(self.kept)]
        for i, score in zip(read, columns.sum(-1).tolist(), strict=True):
            found[i] = round(min(1.0, score), DECIMALS)
        return found


def make(*, folder: str, labels: Sequence[str]) -> ModelScores:
    """The scores of the model in `folder`; it is read once. Raises ConfigError for labels that it does not have,
    MaturaError for a model without any."""
    return _made(folder, tuple(labels))


@lru_cache(maxsize=1)
def _made(folder: str, keep: tuple[str, ...]) -> ModelScores:
    from matura.model import store
    from matura.tokenizer import conversation

    model = store.load_for_inference(Path(folder))
    known = labels(model)
    if missing := [name for name in keep if name not in known]:
        raise ConfigError(
            f"quality.labels: {folder} has no label {missing[0]!r}{did_you_mean(missing[0], known)}"
        )
    about = {"labels": list(known), "kept": list(keep)}
    tokenizer = conversation.load(Path(folder)).tokenizer
    return ModelScores(model, tokenizer, tuple(known.index(name) for name in keep), about)
