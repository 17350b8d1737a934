"""The one way to ask a model anything in an exam: score a continuation, roll over a text, write an answer, or tell what
the answers of a conversation cost.

Results do not depend on what else is asked in the same call: rows are packed without padding, what contexts share is
read once, and greedy answers that are written in one batch are those written alone (tested to 1e-5). The conventions
of encoding are those of `score.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matura.core.errors import MaturaError
from matura.core.records import Conversation
from matura.evaluate import score as encoding
from matura.evaluate.score import WINDOW, Advance, Bits

BATCH = 16
"""Answers that are written together."""


@dataclass(frozen=True, slots=True)
class Turns:
    """A conversation up to the answer, as (role, content): what a model with a chat template is asked."""

    messages: tuple[tuple[str, str], ...]

    def __len__(self) -> int:
        """Characters."""
        return sum(len(content) for _, content in self.messages)

    def ids(self, format: Any) -> list[int]:
        """The prompt as the format's template writes it."""
        return list(format.prompt([{"role": role, "content": content} for role, content in self.messages]))


@dataclass(frozen=True, slots=True)
class Score:
    """How likely is `continuation` after `context`? The space between them is part of the continuation; in a
    conversation, where the answer opens a turn of its own, it is not asked for."""

    context: str | Turns
    continuation: str


@dataclass(frozen=True, slots=True)
class Roll:
    """How many bits does this whole text take?"""

    text: str


@dataclass(frozen=True, slots=True)
class Write:
    """What does the model write after `prompt`, up to one of the texts `until`?

    Greedily at temperature 0, otherwise drawn with this `seed`. `chat`: the prompt is a user's message in the model's
    own conversation format; plain text for a model without one.
    """

    prompt: str | Turns
    until: tuple[str, ...] = ()
    max_tokens: int = 256
    chat: bool = False
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Answers:
    """How many bits do the answers of this conversation take, each after what stands before it? `turns`: which of them,
    as in training."""

    row: Conversation
    turns: Literal["all", "last"] = "all"


Request = Score | Roll | Write | Answers


@dataclass(frozen=True, slots=True)
class Scored:
    """`logprob`: sum of natural logs over the continuation's tokens; `greedy`: each was the likeliest; `bytes` of the
    text that was scored."""

    logprob: float
    greedy: bool
    bytes: int
    tokens: int


Reply = Scored | Bits | str
"""What comes back: `Scored` for a `Score`, `Bits` for a `Roll` and for `Answers`, the text for a `Write`."""


@dataclass(frozen=True)
class Reader:
    """A model with its tokenizer and format. `window`: longest input in tokens, at most the model's context."""

    model: Any
    format: Any
    window: int = WINDOW

    def __post_init__(self) -> None:
        from matura.model import config as c

        config = self.model.config
        if (
            config.decoder is None
            or config.encoder is not None
            or not isinstance(config.head, c.LanguageHead)
        ):
            raise MaturaError("exams are for models that continue text; this one has no decoder of its own")


def ask(reader: Reader, requests: Sequence[Request], *, advance: Advance | None = None) -> list[Reply]:
    """Replies in the order of the requests, whatever kinds they are. `advance` hears of tokens done."""
    replies: dict[int, Reply] = {}

    def put(kind: type, found: Sequence[Reply]) -> None:
        places = [i for i, one in enumerate(requests) if isinstance(one, kind)]
        replies.update(zip(places, found, strict=True))

    put(Score, score(reader, [one for one in requests if isinstance(one, Score)], advance=advance))
    put(Roll, rolling(reader, [one.text for one in requests if isinstance(one, Roll)], advance=advance))
    put(Answers, answers(reader, [one for one in requests if isinstance(one, Answers)], advance=advance))
    put(Write, generate(reader, [one for one in requests if isinstance(one, Write)], advance=advance))
    return [replies[i] for i in range(len(requests))]


def score(reader: Reader, asked: Sequence[Score], *, advance: Advance | None = None) -> list[Scored]:
    """Log-probability of each continuation. A context that does not fit the window loses its beginning."""
    from matura.model.logprobs import continuation_scores

    rows = [encoding.fitting(pair(reader.format, one), reader.window) for one in asked]
    found = continuation_scores(reader.model, rows, advance=advance)
    return [
        Scored(
            math.fsum(value for value, _ in tokens),
            all(greedy for _, greedy in tokens),
            len(scored_text(one).encode()),
            len(tokens),
        )
        for one, tokens in zip(asked, found, strict=True)
    ]


def pair(format: Any, asked: Score) -> encoding.Row:
    """Ids of context and continuation."""
    if isinstance(asked.context, Turns):
        return asked.context.ids(format), format.tokenizer.encode(scored_text(asked))
    return encoding.pair(format.tokenizer, asked.context, asked.continuation)


def scored_text(asked: Score) -> str:
    """The text whose tokens are scored: with white space from the end of the context, and in a conversation without
    the space before it. Its bytes are what bits are told for."""
    if isinstance(asked.context, Turns):
        return asked.continuation.lstrip()
    return asked.context[len(asked.context.rstrip()) :] + asked.continuation


def rolling(reader: Reader, texts: Sequence[str], *, advance: Advance | None = None) -> list[Bits]:
    """Bits of whole texts, each on its own, in windows that score every token once."""
    format = reader.format
    return encoding.documents(
        reader.model,
        format.tokenizer,
        texts,
        begin=format.begin_id,
        window=reader.window,
        advance=advance,
    )


def answers(reader: Reader, asked: Sequence[Answers], *, advance: Advance | None = None) -> list[Bits]:
    """Bits of the answers of each conversation, stop tokens included, at the very tokens that training would count: an
    answer is cut where the window ends, and one that is only read counts nothing. Bytes are those of the text."""
    from matura.model.logprobs import continuation_logprobs

    format = reader.format
    cut = [encoding.answer_rows(format, one.row, reader.window, one.turns) for one in asked]
    scored = iter(continuation_logprobs(reader.model, [row for rows in cut for row in rows], advance=advance))
    found = []
    for rows in cut:
        bits = -math.fsum(x for _ in rows for x in next(scored)) / math.log(2)
        found.append(Bits(bits, answer_bytes(format, rows), sum(len(new) for _, new in rows)))
    return found


def answer_bytes(format: Any, rows: Sequence[encoding.Row]) -> int:
    """Bytes of text in what the rows score: stop tokens and other markup have none."""
    tokenizer = format.tokenizer
    scored = (id for _, new in rows for id in new)
    return sum(len(tokenizer.token_bytes(id)) for id in scored if id not in tokenizer.special_ids)


def generate(reader: Reader, asked: Sequence[Write], *, advance: Advance | None = None) -> list[str]:
    """Answers without the text that ended them. Of a prompt that leaves no room, the end is read.

    Prompts of like length are written together (`infer.engine` sees to it): then little of a batch is padding.
    """
    from matura.infer import text
    from matura.infer.engine import Request as Asked
    from matura.infer.sampling import Sampling

    stops = stop_ids(reader.format)
    requests = [
        Asked(
            prompt_ids(reader, one),
            Sampling(
                max_new_tokens=one.max_tokens,
                temperature=one.temperature,
                top_p=one.top_p,
                seed=one.seed,
                stop=one.until,
            ),
            stops,
        )
        for one in asked
    ]
    written = text.answers(reader.model, reader.format.tokenizer, requests, batch=BATCH, advance=advance)
    return [one.text for one in written]


def stop_ids(format: Any) -> tuple[int, ...]:
    """Tokens that end what is written: those of the format, and the one that stands between documents."""
    ends = (*format.stop_ids, format.tokenizer.eos_id, format.begin_id)
    return tuple(dict.fromkeys(id for id in ends if id is not None))


def prompt_ids(reader: Reader, asked: Write) -> list[int]:
    """The prompt's tokens, at least one; the last ones when it and the answer do not fit the window."""
    tokenizer, format = reader.format.tokenizer, reader.format
    if asked.chat and format.template is not None:
        ids = format.prompt([{"role": "user", "content": asked.prompt}])
        return list(ids[-max(1, reader.window - asked.max_tokens) :])
    begin = [] if format.begin_id is None else [format.begin_id]
    if isinstance(asked.prompt, Turns):
        ids = asked.prompt.ids(format)
    else:
        ids = [*tokenizer.prefix_ids, *tokenizer.encode(asked.prompt)] or begin
    return ids[-max(1, reader.window - asked.max_tokens) :]
