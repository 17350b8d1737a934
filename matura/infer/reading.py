"""Texts through a model that only reads them: in batches of similar length, each result back at its text's place.

Shape suffixes: B batch, T tokens, D width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import Tensor

from matura.core.errors import MaturaError
from matura.infer.batch import padded
from matura.model.transformer import Transformer
from matura.tokenizer.tokenizer import Tokenizer


def hidden_states(
    model: Transformer, rows: Sequence[Sequence[int]], batch: int = 16
) -> Iterator[tuple[list[int], Tensor, Tensor | None]]:
    """(indices of rows, their last hidden states [B, T, D], which tokens are real [B, T] or None for all).

    The encoder reads where there is one, else the decoder. The longest rows come first, so batches hold rows of like
    length; padding is on the right and masked. Raises MaturaError for a row that is empty or too long.
    """
    check(model, rows)
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
    for start in range(0, len(order), batch):
        indices = order[start : start + batch]
        device = model.embed.weight.device
        ids_BT, real_BT = padded([rows[i] for i in indices], device, left=False)
        read = model.decode if model.encoder is None else model.encode
        yield indices, read(ids_BT, mask=real_BT), real_BT


def longest(model: Transformer) -> int:
    """Tokens that the model reads at once; `sys.maxsize` where only memory ends it."""
    return model.config.longest(model.config.encoder or model.config.decoder)


def check(model: Transformer, rows: Sequence[Sequence[int]], advice: str = "shorten it") -> None:
    """Raises MaturaError for a row that is empty or longer than the context; `advice` says what to do about that."""
    for i, row in enumerate(rows):
        which = f"text {i}" if len(rows) > 1 else "the text"
        if not row:
            raise MaturaError(f"{which} is empty; give at least one word")
        if len(row) > (most := longest(model)):
            raise MaturaError(f"{which} has {len(row)} tokens and the model's context is {most}; {advice}")


def clipped(tokenizer: Tokenizer, texts: Sequence[str], tokens: int) -> tuple[list[list[int]], list[int]]:
    """The ids of every text with what the tokenizer puts around it, and the indices of texts that were cut.

    What goes beyond `tokens` is cut off at the end of the text; what stands around it stays.
    """
    prefix, suffix = list(tokenizer.prefix_ids), list(tokenizer.suffix_ids)
    room = tokens - len(prefix) - len(suffix)
    if room < 1:
        raise MaturaError(f"{tokens} tokens leave no room for a text; allow at least {tokens - room + 1}")
    plain = tokenizer.encode_batch(texts)
    cut = [i for i, ids in enumerate(plain) if len(ids) > room]
    return [[*prefix, *ids[:room], *suffix] for ids in plain], cut
