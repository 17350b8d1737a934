"""Generation as text: whole answers or pieces, stop strings that may span tokens, and settings that are texts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from matura.core.errors import MaturaError
from matura.core.settings import Sampling
from matura.infer.engine import Request, Token, stream
from matura.model.peft.adapter import Adapter
from matura.model.transformer import Transformer
from matura.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole answer. `text` ends before the first stop string; `ids` are all that were drawn, without a stop token,
    so they may say more than `text`. With `Sampling.logprobs`, `logprobs` has a log-probability for each id, and `top`
    the likeliest (id, log-probability) at its place."""

    text: str
    ids: tuple[int, ...]
    finish: Literal["stop", "length"]
    logprobs: tuple[float, ...] = ()
    top: tuple[tuple[tuple[int, float], ...], ...] = ()


def answers(
    model: Transformer,
    tokenizer: Tokenizer,
    requests: Sequence[Request],
    *,
    batch: int = 16,
    advance: Callable[[int], None] | None = None,
) -> list[Answer]:
    """The answers to all requests, decoded together; the `Sampling.n` answers to one stand side by side.

    Stop strings end a row as soon as they are complete. `advance(n)` hears of new tokens. Raises MaturaError as the
    engine does.
    """
    written = [[_Writing(tokenizer, one.sampling.stop) for _ in range(one.sampling.n)] for one in requests]

    def ended(request: int, sample: int, new: list[int]) -> bool:
        return written[request][sample].ends(new[-1])

    stops = any(one.sampling.stop for one in requests)
    plain = [_in_ids(tokenizer, one) for one in requests]
    for token in stream(model, plain, batch=batch, ended=ended if stops else None):
        written[token.request][token.sample].take(token)
        if advance:
            advance(1)
    return [one.answer() for samples in written for one in samples]


def stream_text(
    model: Transformer,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    sampling: Sampling,
    stop_ids: Sequence[int],
    source: Sequence[int] = (),
    adapter: Adapter | None = None,
) -> Iterator[str]:
    """The answer to one prompt, in pieces that are whole characters. Stop tokens and stop strings are left out.

    Raises MaturaError for `Sampling.n` above 1 and for `Sampling.logprobs`: a stream of text has no place for them.
    """
    if sampling.n > 1 or sampling.logprobs is not None:
        name = "n above 1" if sampling.n > 1 else "logprobs"
        raise MaturaError(f"a stream of text has no place for {name}; use matura.infer.text.answers")
    return _pieces(model, tokenizer, Request(ids, sampling, stop_ids, source, adapter=adapter))


def _pieces(model: Transformer, tokenizer: Tokenizer, request: Request) -> Iterator[str]:
    decoder = tokenizer.stream(skip_special=True)
    stop = StopStrings(request.sampling.stop)
    for token in stream(model, [_in_ids(tokenizer, request)]):
        piece = "" if token.finish == "stop" else decoder.push(token.id)
        if token.finish:
            piece += decoder.finish()
        if ready := stop.push(piece):
            yield ready
        if stop.found:
            return
    if rest := stop.finish():
        yield rest


def token_bias(tokenizer: Tokenizer, bias: Mapping[int | str, float]) -> dict[int, float]:
    """`Sampling.logit_bias` from token ids or texts. Raises MaturaError for a text that is not one token."""
    found: dict[int, float] = {}
    for key, value in bias.items():
        ids = tokenizer.encode(key) if isinstance(key, str) else [key]
        if len(ids) != 1:
            raise MaturaError(
                f"logit_bias: {key!r} is {len(ids)} tokens ({', '.join(map(str, ids))}), not one; name a single "
                "token (a space before a word counts) or its id"
            )
        if ids[0] in found:
            raise MaturaError(f"logit_bias: {key!r} is token {ids[0]}, which was named before")
        found[ids[0]] = value
    return found


def _in_ids(tokenizer: Tokenizer, request: Request) -> Request:
    """The request as the engine takes it: bad words as ids, at the start of a text and after a space; stop strings are
    watched out here."""
    sampling = request.sampling
    if not sampling.stop and not sampling.bad_words:
        return request
    texts = [text for word in sampling.bad_words for text in (word, word if word[0] == " " else f" {word}")]
    spelled = [tuple(tokenizer.encode(text)) for text in texts]
    words = dict.fromkeys([*map(tuple, request.bad_words), *spelled])
    plain = sampling.model_copy(update={"stop": (), "bad_words": ()})
    return replace(request, sampling=plain, bad_words=tuple(words))


class _Writing:
    """One answer while it grows. Only where there are stop strings is it decoded on the way."""

    def __init__(self, tokenizer: Tokenizer, stops: Sequence[str]) -> None:
        self._tokenizer, self._stop = tokenizer, StopStrings(stops)
        self._decoder = tokenizer.stream(skip_special=True) if stops else None
        self._text = ""
        self._tokens: list[Token] = []

    def ends(self, id: int) -> bool:
        """Whether a stop string is complete with this id."""
        if self._decoder is not None:
            self._text += self._stop.push(self._decoder.push(id))
        return self._stop.found

    def take(self, token: Token) -> None:
        """One more token, after `ends` has seen it (a stop token goes by it)."""
        self._tokens.append(token)

    def answer(self) -> Answer:
        """The answer as it stands."""
        last = self._tokens[-1]
        by_token = last.finish == "stop" and not self._stop.found
        tokens = self._tokens[:-1] if by_token else self._tokens
        ids = tuple(token.id for token in tokens)
        if self._decoder is None:
            text = self._tokenizer.decode(ids, skip_special=True)
        else:
            text = self._text + self._stop.push(self._decoder.finish()) + self._stop.finish()
        finish: Literal["stop", "length"] = "stop" if self._stop.found or last.finish == "stop" else "length"
        logprobs = tuple(token.logprob for token in tokens if token.logprob is not None)
        top = tuple(token.top for token in tokens) if logprobs else ()
        return Answer(text, ids, finish, logprobs, top)


class StopStrings:
    """Passes text on up to the first stop string; what could be the beginning of one is held back."""

    def __init__(self, stops: Sequence[str]) -> None:
        self.stops = tuple(stop for stop in stops if stop)
        self.found = False
        self._held = ""

    def push(self, piece: str) -> str:
        """The text that is certain now."""
        if self.found:
            return ""
        text = self._held + piece
        # The one that is complete first: then it does not matter where the text was cut into pieces.
        found = [(at + len(stop), at) for stop in self.stops if (at := text.find(stop)) >= 0]
        if found:
            self.found, self._held = True, ""
            return text[: min(found)[1]]
        keep = max((_opening(text, stop) for stop in self.stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back when the text ends."""
        held, self._held = self._held, ""
        return held


def _opening(text: str, stop: str) -> int:
    """Length of the longest beginning of `stop` that `text` ends with."""
    return next((n for n in range(min(len(stop) - 1, len(text)), 0, -1) if text.endswith(stop[:n])), 0)
