"""How likely a model finds a text, or what follows one.

The conventions are those of `evaluate/score.py`. A text longer than the context is read in windows of the context's
size that do not overlap, and every token is scored once; only the last window looks back as far as it may. So the
first token of a window is predicted from the one before it alone, which makes the perplexity of a long text a little
too high.

Shape suffixes: T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from matura.core.errors import MaturaError
from matura.evaluate import score as scores


@dataclass(frozen=True, slots=True)
class Likelihood:
    """Natural-log probability of what was scored: `tokens` tokens, `bytes` bytes of UTF-8."""

    logprob: float
    tokens: int
    bytes: int

    @property
    def perplexity(self) -> float:
        """exp(-logprob / tokens); it compares only models of one vocabulary."""
        return math.exp(-self.logprob / self.tokens)

    @property
    def bits_per_byte(self) -> float:
        """-log2(probability) / bytes; compares models of any vocabulary."""
        return -self.logprob / math.log(2) / self.bytes


def text(model: Any, format: Any, whole: str, *, window: int | None = None) -> Likelihood:
    """A text by itself, after the token that begins a document (without one its first token is given, not scored).

    `window` is the model's context unless it is given. Raises MaturaError for a model that cannot write and for a text
    that leaves nothing to score.
    """
    _writes(model)
    if model.encoder is not None:
        raise MaturaError(
            "this model answers a text that its encoder reads: give the answer too, as a continuation"
        )
    window = _window(model, window)
    (found,) = scores.documents(model, format.tokenizer, [whole], begin=format.begin_id, window=window)
    return _some(Likelihood(-found.bits * math.log(2), found.tokens, found.bytes))


def continuation(
    model: Any, format: Any, before: str, after: str, *, window: int | None = None
) -> Likelihood:
    """`after`, given what stands `before` it. The two are encoded together; white space at the end of `before` is
    scored with `after`.

    What does not fit into the window loses the beginning of `before`; an `after` that is longer by itself is scored in
    windows. With an encoder, it reads `before`, and `after` is scored with the token that ends it. Raises MaturaError
    as `text` does.
    """
    from matura.model.logprobs import continuation_logprobs

    _writes(model)
    if model.encoder is not None:
        return _some(_answer(model, format.tokenizer, before, after))
    try:
        given, new = scores.pair(format.tokenizer, before, after)
    except ValueError as error:
        raise MaturaError(f"nothing stands before the text to be scored: {error}") from error
    rows = scores.rolling([*given, *new], len(given), _window(model, window))
    found = [value for row in continuation_logprobs(model, rows) for value in row]
    space = before[len(before.rstrip()) :]
    return _some(Likelihood(math.fsum(found), len(found), len((space + after).encode())))


def _answer(model: Any, tokenizer: Any, source: str, target: str) -> Likelihood:
    """What the decoder gives a target for a source."""
    import torch

    from matura.infer.batch import opening

    ids = [*tokenizer.encode(target), *tokenizer.suffix_ids]
    with torch.inference_mode():
        device = model.embed.weight.device
        read = tokenizer(source)
        start = list(opening(model, (), read, "score"))
        opening(model, [*start, *ids[:-1]], read, "score")  # refuses what is too long
        memory_1SD = model.encode(torch.tensor([read], device=device))
        fed_1T = torch.tensor([[*start, *ids[:-1]]], device=device)
        hidden_TD = model.decode(fed_1T, memory_BSD=memory_1SD)[0, len(start) - 1 :]
        logprobs_TV = model.logits(hidden_TD).float().log_softmax(-1)
        found_T = logprobs_TV.gather(1, torch.tensor(ids, device=device)[:, None])[:, 0]
    return Likelihood(math.fsum(found_T.tolist()), len(ids), len(target.encode()))


def _writes(model: Any) -> None:
    from matura.model import config as c

    if model.decoder is None or not isinstance(model.config.head, c.LanguageHead):
        raise MaturaError(
            "this model does not write text, so it gives a text no probability; take a decoder (for a masked language "
            "model, `matura inspect tokens` masks one token after the other)"
        )


def _window(model: Any, window: int | None) -> int:
    context = int(model.config.context)
    if window is not None and not 1 < window <= context:
        raise MaturaError(f"window: expected 2 to {context} tokens, the model's context, got {window}")
    return window or context


def _some(found: Likelihood) -> Likelihood:
    if not found.tokens or not found.bytes:
        raise MaturaError("the text leaves no token to score; give a longer one")
    return found
