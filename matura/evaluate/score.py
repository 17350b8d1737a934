"""How texts become rows of tokens to score: pairs of context and continuation, documents, divergence from a parent.

Conventions, the same for every model, so that figures compare:

- Text is encoded without special tokens. A context and its continuation are encoded together and cut where
  the context ends; white space at the end of the context belongs to the continuation (as in lm-evaluation-harness),
  so no token boundary is forced that the model never saw.
- A document comes after one token that begins a text (`Format.begin_id`, the separator of pre-training), as in
  training, and its first token is scored too. For a model without such a token the first token is given and not
  scored. A question has what the tokenizer puts before any text (`prefix_ids`: nothing for GPT-2 or SmolLM2).
- Documents never share a window. One longer than the window is cut into windows that score every token once;
  the last one looks back as far as the window allows.
- Bytes are UTF-8 bytes of the text that was scored, so models with different tokenizers compare.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from matura.core.conversation_settings import Turns
from matura.core.records import Conversation

if TYPE_CHECKING:
    from matura.tokenizer.conversation import Format

Row = tuple[Sequence[int], Sequence[int]]
Advance = Callable[[int], None]
WINDOW = 1024


class Tokenizer(Protocol):
    """What is used of `matura.tokenizer.tokenizer.Tokenizer`."""

    @property
    def bos_id(self) -> int | None: ...
    @property
    def eos_id(self) -> int | None: ...
    @property
    def prefix_ids(self) -> Sequence[int]: ...
    def encode(self, text: str) -> list[int]: ...
    def token_bytes(self, id: int) -> bytes: ...


class Rendered(Protocol):
    @property
    def ids(self) -> Sequence[int]: ...
    @property
    def mask(self) -> Sequence[int]: ...


class Scorer(Protocol):
    """`matura.model.logprobs.continuation_logprobs`: natural logs for each token of each continuation."""

    def __call__(
        self, model: Any, rows: Sequence[Row], *, advance: Advance | None = None
    ) -> list[list[float]]: ...


class Divergence(Protocol):
    """`matura.model.logprobs.continuation_kl`: nats for each token of each continuation."""

    def __call__(
        self, parent: Any, child: Any, rows: Sequence[Row], *, advance: Advance | None = None
    ) -> list[list[float]]: ...


@dataclass(frozen=True)
class Bits:
    """One document: `bits` = -log2 of its probability, over `bytes` and `tokens`."""

    bits: float
    bytes: int
    tokens: int


def pair(tokenizer: Tokenizer, context: str, continuation: str) -> tuple[list[int], list[int]]:
    """Ids of the context (never empty: begin or end of text stands for none) and of the continuation."""
    stripped = context.rstrip()
    continuation = context[len(stripped) :] + continuation
    prefix = list(tokenizer.prefix_ids)
    if not stripped:
        return prefix or [_some_token(tokenizer)], tokenizer.encode(continuation)
    whole = tokenizer.encode(stripped + continuation)
    cut = len(tokenizer.encode(stripped))
    # A merge across the boundary may leave no token to either side; then the boundary is forced.
    if not 0 < cut < len(whole):
        return prefix + tokenizer.encode(stripped), tokenizer.encode(continuation)
    return prefix + whole[:cut], whole[cut:]


def _some_token(tokenizer: Tokenizer) -> int:
    for token in (tokenizer.bos_id, tokenizer.eos_id):
        if token is not None:
            return token
    raise ValueError("an empty context needs a token, and the tokenizer has neither begin nor end of text")


def fitting(row: Row, window: int) -> Row:
    """The row with at most `window` tokens of input: a context that does not fit loses its beginning.

    The input is context and continuation without its last token. Of a continuation that is longer by itself, the end
    is scored.
    """
    context, continuation = row
    continuation = continuation[-window:]
    return context[-(window + 1 - len(continuation)) :], continuation


def windows(ids: Sequence[int], begin: int | None, window: int = WINDOW) -> list[Row]:
    """Rows that score every token of a document once, with at most `window` tokens of input each.

    `begin` stands before the first token; without it the first token is only context.
    """
    return rolling(list(ids) if begin is None else [begin, *ids], 1, window)


def rolling(whole: Sequence[int], first: int, window: int = WINDOW) -> list[Row]:
    """Rows that score every token from `whole[first]` on once, with at most `window` tokens of input each.

    The windows do not overlap, but for the last one, which looks back as far as it may.
    """
    rows: list[Row] = []
    for start in range(first, len(whole), window):
        end = min(start + window, len(whole))
        # The input is context and continuation without its last token: `window` tokens if there are so many.
        rows.append((whole[max(0, end - window - 1) : start], whole[start:end]))
    return rows


def documents(
    model: Any,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    *,
    begin: int | None,
    window: int = WINDOW,
    advance: Advance | None = None,
    logprobs: Scorer | None = None,
) -> list[Bits]:
    """Bits, bytes and tokens of each text, as far as scored. Together: sum of bits / sum of bytes.

    `begin` is the token before each text, `Format.begin_id`.
    """
    encoded = [tokenizer.encode(text) for text in texts]
    cut = [windows(ids, begin, window) for ids in encoded]
    rows = [row for one in cut for row in one]
    scored = iter((logprobs or _logprobs())(model, rows, advance=advance))
    result = []
    for text, ids, one in zip(texts, encoded, cut, strict=True):
        given = b"" if begin is not None or not ids else tokenizer.token_bytes(ids[0])
        bits = -math.fsum(x for _ in one for x in next(scored)) / math.log(2)
        size = max(0, len(text.encode()) - len(given))
        result.append(Bits(bits, size, sum(len(continuation) for _, continuation in one)))
    return result


def clip(tokenizer: Tokenizer, text: str, tokens: int) -> str:
    """The longest beginning of `text`, ending before a space or line break, of at most `tokens` tokens.

    Cutting text rather than ids keeps bytes and tokens of the same thing, for whatever model reads it. Text
    without spaces is cut between characters.
    """
    text = text[: tokens * 16]  # longer pieces than 16 characters a token are no prose
    if len(tokenizer.encode(text)) <= tokens:
        return text.rstrip()
    low, high = 0, len(text)  # text[:low] fits, text[:high] does not
    while high - low > 1:
        middle = (low + high) // 2
        fits = len(tokenizer.encode(text[:middle])) <= tokens
        low, high = (middle, high) if fits else (low, middle)
    inside = text[:low]
    if text[low : low + 1].isspace():
        return inside.rstrip()
    words = inside.rsplit(None, 1)
    return (words[0] if len(words) == 2 and words[0].strip() else inside).rstrip()


def conversation_rows(
    format: Format, conversations: Iterable[Conversation], window: int = WINDOW
) -> list[list[Row]]:
    """For each conversation, a row for every stretch of tokens that a model would have to write (`answer_rows`).

    Plain text is one document. Of what is longer than the window, the beginning counts.
    """
    return [
        answer_rows(format, one, window)
        if one.messages
        else windows(format.tokenizer.encode(one.text)[:window], format.begin_id, window)
        for one in conversations
    ]


def answer_rows(format: Format, row: Conversation, window: int, turns: Turns = "all") -> list[Row]:
    """A row for every stretch of a conversation's answers that training would count, as far as the window reaches: what
    may be called stands before them; one that is only read, and the end of one that was not finished, count nothing.

    Raises MaturaError as training does, for a template that leaves something out.
    """
    from matura.train.examples import from_conversation

    made, _ = from_conversation(row, format, window, turns=turns)
    return [stretch for one in made for stretch in masked_rows(one, window)]


def masked_rows(rendered: Rendered, window: int) -> list[Row]:
    """A row for every stretch of tokens that the mask names, as far as the window reaches."""
    ids, mask = list(rendered.ids)[:window], list(rendered.mask)[:window]
    rows: list[Row] = []
    start = None
    for i, wanted in enumerate([*mask, 0]):
        if wanted and start is None:
            start = max(i, 1)  # nothing stands before the first token: it cannot be scored
        elif not wanted and start is not None:
            if i > start:
                rows.append((ids[:start], ids[start:i]))
            start = None
    return rows


def kl(
    parent: Any,
    child: Any,
    rows: Sequence[Sequence[Row]],
    *,
    advance: Advance | None = None,
    divergence: Divergence | None = None,
) -> list[tuple[float, int]]:
    """For each conversation, given as its rows: (sum of KL(parent || child) in nats, tokens).

    Both models must read the same tokens. A conversation without rows gives (0.0, 0).
    """
    flat = [row for one in rows for row in one]
    scored = iter((divergence or _kl())(parent, child, flat, advance=advance))
    values = [[x for _ in one for x in next(scored)] for one in rows]
    return [(math.fsum(one), len(one)) for one in values]


def _logprobs() -> Scorer:
    from matura.model.logprobs import continuation_logprobs

    return continuation_logprobs


def _kl() -> Divergence:
    from matura.model.logprobs import continuation_kl

    return continuation_kl
