"""Texts as vectors: the last hidden states of a text's tokens pooled into one.

Mean pooling over all tokens, [CLS] and [SEP] among them, normalised, is the recipe of sentence-transformers'
all-MiniLM-L6-v2 (arXiv:1908.10084, section 3); so is its limit of 256 tokens.

Shape suffixes: B batch, T tokens, N texts, D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from matura.core.errors import ConfigError
from matura.infer.reading import hidden_states
from matura.model import config as c
from matura.model.heads import pick
from matura.model.transformer import Transformer

Named = Literal[c.Pool, "cls"]
"""The ways to pool; "cls", after BERT's first token, is another name of "first"."""
TOKENS = 256
"""Tokens of a text that are read by default."""


@torch.inference_mode()
def embed(
    model: Transformer,
    rows: Sequence[Sequence[int]],
    *,
    pool: Named = "mean",
    normalize: bool = True,
    batch: int = 16,
) -> Tensor:
    """One vector for each row of ids, [N, D], on the CPU; of length one when normalised.

    Raises ConfigError for a pooling that the model has no use for, MaturaError for rows that are empty or too long.
    """
    pool = "first" if pool == "cls" else pool
    if pool not in c.POOLS:
        raise ConfigError(f"pool: expected {', '.join(map(repr, c.POOLS))}, got {pool!r}")
    if pool == "first" and model.encoder is None:
        raise ConfigError(
            "pool: in a decoder the first token has seen nothing but itself; take 'mean' or 'last'"
        )
    dtype = torch.promote_types(model.embed.weight.dtype, torch.float32)
    vectors_ND = torch.empty(len(rows), model.config.width, dtype=dtype)
    for indices, hidden_BTD, real_BT in hidden_states(model, rows, batch):
        vectors_ND[indices] = pick(hidden_BTD, real_BT, pool).to(vectors_ND)
    return torch.nn.functional.normalize(vectors_ND, dim=-1) if normalize else vectors_ND
