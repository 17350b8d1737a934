"""What two forms of one model say of the same text, compared: before and after its updates were added, for one.

Shape suffixes: T tokens, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor

from matura.core.errors import ConfigError
from matura.core.settings import Sampling
from matura.infer.engine import generate
from matura.model.heads import LanguageHead
from matura.model.transformer import Transformer
from matura.tokenizer.tokenizer import Tokenizer


def read_and_written(model: Transformer, tokenizer: Tokenizer, text: str, new_tokens: int) -> Tensor:
    """The ids of a text, and of up to `new_tokens` that a model which writes would write after it, [1, T].

    Raises ConfigError for a text without tokens.
    """
    most = model.config.longest(model.config.last_stack)
    ids = tokenizer.encode(text)[:most]
    if not ids:
        raise ConfigError(f"text: {text!r} holds no token; give some words")
    new = min(new_tokens, most - len(ids))
    if new and model.encoder is None and isinstance(model.head, LanguageHead):
        ids += generate(model, [ids], Sampling(temperature=0, max_new_tokens=new))[0]
    return torch.tensor([ids])


@torch.inference_mode()
def outputs(model: Transformer, ids_1T: Tensor) -> Tensor:
    """What the model says of a text: logits [1, T, V] of a decoder or of an encoder that fills masks, scores of a
    classifier, else hidden states."""
    if model.encoder is not None and model.decoder is not None:
        hidden = model.decode(ids_1T, memory_BSD=model.encode(ids_1T))
    else:
        hidden = model.encode(ids_1T) if model.decoder is None else model.decode(ids_1T)
    if isinstance(model.head, LanguageHead):
        return model.logits(hidden)
    found: Tensor = hidden if model.head is None else model.head(hidden)
    return found


def compared(before: Tensor, after: Tensor) -> dict[str, float]:
    """How far the outputs moved: at most and on average, at most as a share of the largest, and the share of places
    where the likeliest stayed what it was."""
    change = (after - before).abs()
    return {
        "largest_logit_change": float(change.max()),
        "mean_logit_change": float(change.mean()),
        "relative_logit_change": float(change.max() / before.abs().max()),
        "same_choice": float((after.argmax(-1) == before.argmax(-1)).float().mean()),
    }
