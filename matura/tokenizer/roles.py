"""Special tokens and the conversation format that a new model gets, by the kind of model it will be."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import tokenizers
from tokenizers import processors

from matura.core.errors import ConfigError, MaturaError
from matura.tokenizer.conversation import Format
from matura.tokenizer.tokenizer import Roles, Tokenizer

SEPARATOR, PADDING, OPEN, CLOSE = "<|endoftext|>", "<|pad|>", "<|im_start|>", "<|im_end|>"
CHATML = (
    "{% for message in messages %}"
    "{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
"""Each message between two special tokens, its role on the first line."""
_PROBE = (
    {"role": "user", "content": "Hello?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "Bye."},
    {"role": "assistant", "content": "Bye!"},
)


@dataclass(frozen=True, slots=True)
class Special:
    """The special tokens in the order of their ids, what they are for, and what stands around a whole text."""

    names: tuple[str, ...]
    roles: Roles
    prefix: str | None = None
    suffix: str | None = None


def special(model: str, chat: bool, unknown: bool, sentinels: int, more: Sequence[str]) -> Special:
    """The tokens of a "decoder", "encoder" or "encoder-decoder".

    `unknown` adds one for what cannot be written, `sentinels` (encoder-decoder) those that mark spans which are left
    out, `chat` (decoder) those of the conversation format, `more` are the user's own.
    """
    if model == "encoder":
        names = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        found = Special((), Roles(pad="[PAD]", unk="[UNK]", mask="[MASK]"), "[CLS]", "[SEP]")
    elif model == "encoder-decoder":
        names = ["<pad>", "</s>", "<unk>", *(f"<extra_id_{n}>" for n in range(sentinels))]
        found = Special((), Roles(eos="</s>", pad="<pad>", unk="<unk>"), None, "</s>")
    else:
        names = [SEPARATOR, PADDING, *([OPEN, CLOSE] if chat else []), *(["<unk>"] if unknown else [])]
        found = Special(
            (), Roles(bos=SEPARATOR, eos=SEPARATOR, pad=PADDING, unk="<unk>" if unknown else None)
        )
    whole = (*names, *(name for name in more if name not in names))
    if len(set(whole)) != len(whole) or not all(whole):
        raise ConfigError("special_tokens: each must be there once, and none empty")
    return Special(whole, found.roles, found.prefix, found.suffix)


def surround(backend: tokenizers.Tokenizer, tokens: Special) -> None:
    """Make the tokenizer put `prefix` and `suffix` around a whole text."""
    before, after = ([name] if name else [] for name in (tokens.prefix, tokens.suffix))
    if not before and not after:
        return
    pair = [*before, "$A", *after, "$B:1", *(f"{name}:1" for name in after)]
    backend.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after],
        pair=pair,
        special_tokens=[(name, backend.token_to_id(name)) for name in (*before, *after)],
    )


def conversation(tokenizer: Tokenizer, template: str | None, stop: Sequence[str]) -> Format:
    """The format with these stop tokens, once it has written a conversation of several turns.

    Raises MaturaError when the template does not work with these tokens.
    """
    format = Format(tokenizer, template, [tokenizer.id(name) for name in stop])
    if template is not None:
        try:
            format.render(_PROBE)
        except MaturaError as error:
            raise MaturaError(
                f"the conversation format does not work with this tokenizer: {error}"
            ) from error
    return format
