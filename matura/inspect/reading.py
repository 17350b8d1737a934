"""A text as a model reads it: token ids, and a label for every token that a person can point at."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from dataclasses import dataclass

from matura.core.errors import MaturaError
from matura.model import config as c
from matura.model.config import ModelConfig
from matura.tokenizer.tokenizer import Tokenizer


@dataclass(frozen=True)
class Reading:
    """What one stack of a model gets: ids, their labels, and the positions of tokens that no text brought
    ([CLS], [SEP], a begin token)."""

    ids: tuple[int, ...]
    labels: tuple[str, ...]
    added: tuple[int, ...] = ()

    @property
    def sinks(self) -> tuple[int, ...]:
        """Positions where attention rests when it has nothing to look for: the added tokens, or else the first
        (arXiv:2309.17453)."""
        return self.added or (0,)

    @property
    def words(self) -> list[int]:
        """Positions of the text's own tokens."""
        return [i for i in range(len(self.ids)) if i not in self.added]


@dataclass(frozen=True)
class Inputs:
    """`source` goes into the encoder, `target` into the decoder; a model with one stack has one of them."""

    source: Reading | None = None
    target: Reading | None = None


def inputs(
    config: ModelConfig,
    tokenizer: Tokenizer,
    text: str,
    target: str | None = None,
    *,
    begin: int | None = None,
) -> Inputs:
    """`text` for a model with one stack; for an encoder-decoder the encoder reads `text` and the decoder `target`.

    A decoder's text comes after what its tokenizer puts before every text, or else after `begin`. Raises
    MaturaError for an empty text, one longer than the model's positions reach, or a target that has no use.
    """
    if config.encoder is None:
        if target is not None:
            raise MaturaError("this model has no encoder, so it reads one text only; leave the target out")
        opening = tokenizer.prefix_ids or (() if begin is None else (begin,))
        return Inputs(target=_reading(config, config.decoder, tokenizer, text, opening))
    source = _reading(
        config, config.encoder, tokenizer, text, tokenizer.prefix_ids, tokenizer.suffix_ids, "the text"
    )
    if target is None:
        return Inputs(source)
    if config.decoder is None:
        raise MaturaError("this model has no decoder, so it reads one text only; leave the target out")
    opening = tokenizer.prefix_ids if config.start_id is None else (config.start_id,)
    return Inputs(source, _reading(config, config.decoder, tokenizer, target, opening, (), "the target"))


def _reading(
    config: ModelConfig,
    stack: c.StackConfig | None,
    tokenizer: Tokenizer,
    text: str,
    opening: Sequence[int] = (),
    ending: Sequence[int] = (),
    what: str = "the text",
) -> Reading:
    own = tokenizer.encode(text)
    if not own:
        raise MaturaError(f"{what} is empty; give at least one word")
    ids = (*opening, *own, *ending)
    bounded = stack is not None and isinstance(stack.position, c.Learned | c.Rope)
    if bounded and len(ids) > config.context:
        raise MaturaError(
            f"{what} has {len(ids)} tokens and the model's context is {config.context}; shorten it"
        )
    added = (*range(len(opening)), *range(len(opening) + len(own), len(ids)))
    return Reading(ids, tuple(label(tokenizer, id) for id in ids), added)


def label(tokenizer: Tokenizer, id: int) -> str:
    """The text of one token; bytes that are a part of a character as \\xNN, special tokens by name."""
    spelled = b"" if id in tokenizer.special_ids else tokenizer.token_bytes(id)
    return spelled.decode("utf-8", "backslashreplace") or tokenizer.token(id) or f"<{id}>"


def shown(text: str) -> str:
    """A label with its spaces visible and nothing that moves a terminal's cursor."""
    marked = text.replace(" ", "·")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in marked)


def pick(labels: Sequence[str], wanted: str) -> int:
    """The position of a token, by its text or by its number (`7`, or `#7` where a token is itself a number).

    Spaces around a token do not count, and neither does case when no token has the very spelling. Raises
    MaturaError that lists the positions when several tokens fit, or all tokens when none does.
    """
    number = wanted.removeprefix("#")
    named = [label.strip() for label in labels]
    fits = [] if wanted.startswith("#") else [i for i, name in enumerate(named) if name == wanted.strip()]
    if not fits and number.isascii() and number.isdigit() and int(number) < len(labels):
        return int(number)
    if not fits:
        fits = [i for i, name in enumerate(named) if name.lower() == wanted.strip().lower()]
    if len(fits) == 1:
        return fits[0]
    if fits:
        places = ", ".join(str(i) for i in fits)
        raise MaturaError(
            f"{wanted!r} is the token at several positions: {places}. Give its position instead."
        )
    near = difflib.get_close_matches(wanted, named, n=1)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise MaturaError(f"no token is {wanted!r}.{hint} The tokens are: {listing(labels)}")


def listing(labels: Sequence[str]) -> str:
    """All tokens with their positions, on one line."""
    return "  ".join(f"{i} {shown(label)}" for i, label in enumerate(labels))
