"""Which tokens begin a word, for objectives that treat words as wholes."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import tokenizers

from matura.tokenizer.tokenizer import Tokenizer

_SPACE = "\u2581"  # how SentencePiece writes a space


def starts_word(tokenizer: Tokenizer) -> npt.NDArray[np.bool_]:
    """A table over the vocabulary, [V]: True where a token cannot go on the word before it.

    WordPiece: tokens without its prefix (##). Others: tokens that begin with a space, or with anything but a letter, a
    digit or the rest of a character; so punctuation begins a word of its own, and letters after it without a space
    still belong to that. Markup, and ids without a token, stand alone.
    """
    model = tokenizer.backend.model
    prefix = model.continuing_subword_prefix if isinstance(model, tokenizers.models.WordPiece) else None
    found = np.ones(tokenizer.vocab_size, dtype=bool)
    for id in range(tokenizer.vocab_size):
        name = tokenizer.token(id)
        if name is None or id in tokenizer.special_ids:
            continue
        if prefix is not None:
            found[id] = not name.startswith(prefix)
        elif not name.startswith(_SPACE):
            found[id] = _begins(tokenizer.token_bytes(id))
    return found


def _begins(spelled: bytes) -> bool:
    text = spelled.decode("utf-8", "ignore")
    if not spelled or not text or not spelled.startswith(text[0].encode()):
        return False  # a piece of a character
    return not text[0].isalnum()
