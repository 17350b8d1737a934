"""A conversation format as the metadata of a GGUF file: what `from_gguf` reads, in the other direction."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from matura.core.errors import FormatError
from matura.tokenizer import pretokenizers
from matura.tokenizer.conversation import Format
from matura.tokenizer.from_gguf import SAMPLING, TURN_ENDS, TokenType, merges_by_score
from matura.tokenizer.tokenizer import Tokenizer

_INSTEAD = "GGUF has no place for it; write the Hugging Face layout instead"
_SPACE_AS_MARK = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}
_UNREACHED = -1000.0  # the score that llama.cpp's files give tokens that no merge makes
_ROLES = {"bos": "bos", "unk": "unknown", "pad": "padding"}


def metadata(format: Format, vocabulary: int) -> dict[str, Any]:
    """The keys `tokenizer.*` and `general.sampling.*`, for a model with `vocabulary` rows of embeddings.

    Ids that the tokenizer lacks are filled with unused tokens, for llama.cpp needs a name for each. Numbers are int
    and float, numbers of all tokens numpy arrays. Raises FormatError for a tokenizer that GGUF cannot hold: only
    byte-level BPE with a known pre-tokenizer, and SentencePiece-type BPE with byte fallback, have a form there.
    Sampling defaults without a key are left out with a warning.
    """
    tokenizer = format.tokenizer
    if tokenizer.vocab_size > vocabulary:
        raise FormatError(
            f"the tokenizer has {tokenizer.vocab_size} tokens, the model only {vocabulary} rows of embeddings"
        )
    backend = json.loads(tokenizer.backend.to_str())
    model, kind = backend["model"], backend["model"]["type"]
    byte_level = [step["type"] for step in _steps(backend["decoder"], "decoders")] == ["ByteLevel"]
    if kind != "BPE" or not (byte_level or model["byte_fallback"]):
        what = "BPE without bytes" if kind == "BPE" else kind
        raise FormatError(f"the tokenizer is of the kind {what}; {_INSTEAD}")
    tokens, types = _tokens(tokenizer, vocabulary, byte_level=byte_level)
    pairs = [tuple(pair) if isinstance(pair, list) else tuple(pair.split(" ")) for pair in model["merges"]]
    build = _byte_level if byte_level else _sentencepiece
    found = build(backend, tokens, types, pairs) | {
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": np.array(types, np.int32),
        **_special(format),
        **_sampling(format.generation),
    }
    return found if format.template is None else found | {"tokenizer.chat_template": format.template}


def _tokens(tokenizer: Tokenizer, vocabulary: int, *, byte_level: bool) -> tuple[list[str], list[int]]:
    """Name and type of every id."""
    names = {id: token for token, id in tokenizer.backend.get_vocab(with_added_tokens=True).items()}
    added = tokenizer.backend.get_added_tokens_decoder()
    tokens, types = [], []
    for id in range(vocabulary):
        token, type = names.get(id), TokenType.NORMAL
        if token is None:
            token, type = f"[unused {id}]", TokenType.UNUSED
        elif id in added and not added[id].special:
            # llama.cpp looks for these in the text as it is, where a space is a space.
            token, type = token if byte_level else token.replace("▁", " "), TokenType.USER_DEFINED
        elif id in added:
            unknown = id == tokenizer.unk_id and not byte_level
            type = TokenType.UNKNOWN if unknown else TokenType.CONTROL
        elif not byte_level and len(token) == 6 and token.startswith("<0x") and token.endswith(">"):
            type = TokenType.BYTE
        tokens.append(token)
        types.append(int(type))
    if len(set(tokens)) != len(tokens):
        twice = next(token for id, token in enumerate(tokens) if token in tokens[:id])
        raise FormatError(f"two tokens would both be written as {twice!r}; {_INSTEAD}")
    return tokens, types


def _byte_level(
    backend: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], pairs: list[tuple[str, ...]]
) -> dict[str, Any]:
    if not pairs:
        raise FormatError("the tokenizer has no merges, and llama.cpp reads no byte-level BPE without them")
    normalizer = backend["normalizer"]
    if normalizer not in (None, {"type": "NFC"}):
        raise FormatError(f"the tokenizer's normalizer {normalizer['type']}: {_INSTEAD}")
    pre = pretokenizers.name(
        backend["pre_tokenizer"],
        whole_words=backend["model"]["ignore_merges"],
        normalized=normalizer is not None,
    )
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": pre,
        "tokenizer.ggml.merges": [" ".join(pair) for pair in pairs],
        "tokenizer.ggml.add_space_prefix": False,
    }


def _sentencepiece(
    backend: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int], pairs: list[tuple[str, ...]]
) -> dict[str, Any]:
    ranks: dict[str, int] = {}
    for left, right in pairs:
        ranks.setdefault(left + right, len(ranks))
    scores = [-float(ranks[token]) if token in ranks else _UNREACHED for token in tokens]
    # Tokens of several spaces are found in the text before anything is merged.
    found_first = {token.replace(" ", "▁") for token in tokens if " " in token}
    pairs = [pair for pair in pairs if found_first.isdisjoint((*pair, "".join(pair)))]
    if merges_by_score(tokens, types, scores) != pairs:
        raise FormatError(f"the order of the tokenizer's merges is not one of scores of tokens: {_INSTEAD}")
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.scores": np.array(scores, np.float32),
        "tokenizer.ggml.add_space_prefix": _space_prefix(backend),
    }


def _space_prefix(backend: Mapping[str, Any]) -> bool:
    """Whether a text is read as if a space stood before it. Raises FormatError for other changes of the text."""
    normalizers = _steps(backend["normalizer"], "normalizers")
    words = _steps(backend["pre_tokenizer"], "pretokenizers")
    # Where spaces have become marks already, cutting at spaces cuts nothing.
    words = [] if _SPACE_AS_MARK in normalizers and _cuts_at_spaces(words) else words
    if not words and normalizers == [_SPACE_AS_MARK]:
        return False
    if not words and normalizers == [{"type": "Prepend", "prepend": "▁"}, _SPACE_AS_MARK]:
        return True
    if not normalizers and [word["type"] for word in words] == ["Metaspace"]:
        (word,) = words
        if word["replacement"] == "▁" and word.get("split") is False:
            return bool(word["prepend_scheme"] != "never")
    raise FormatError(f"the tokenizer changes or cuts texts in a way of its own; {_INSTEAD}")


def _cuts_at_spaces(words: list[dict[str, Any]]) -> bool:
    return len(words) == 1 and words[0]["type"] == "Split" and words[0]["pattern"] == {"String": " "}


def _steps(part: dict[str, Any] | None, sequence: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    steps: list[dict[str, Any]] = part[sequence] if part["type"] == "Sequence" else [part]
    return steps


def _special(format: Format) -> dict[str, Any]:
    """Tokens that play a part, what surrounds a text, and stop tokens beside the end token."""
    tokenizer = format.tokenizer
    ids = {"bos": tokenizer.bos_id, "unk": tokenizer.unk_id, "pad": tokenizer.pad_id}
    given = [tokenizer.eos_id, *format.stop_ids]
    ends = [id for id in given if id is not None] or [id for id in [format.begin_id] if id is not None]
    if not ends:
        raise FormatError("the tokenizer has no end token, and llama.cpp would take another token for one")
    found = {f"tokenizer.ggml.{_ROLES[role]}_token_id": id for role, id in ids.items() if id is not None}
    found["tokenizer.ggml.eos_token_id"] = ends[0]
    # Some are recognised by their names in the template, so that they need no key.
    known = {tokenizer.backend.token_to_id(end) for end in TURN_ENDS if end in (format.template or "")}
    others = list(dict.fromkeys(id for id in ends if id != ends[0]))
    others.sort(key=lambda id: id in known)
    for role, id in zip(("eot", "eom"), others, strict=False):
        found[f"tokenizer.ggml.{role}_token_id"] = id
    if lost := [tokenizer.token(id) for id in others[2:] if id not in known]:
        raise FormatError(f"more stop tokens than GGUF has places for: {', '.join(map(str, lost))} is left")
    before = _surrounding(tokenizer, tokenizer.prefix_ids, tokenizer.bos_id, "before")
    after = _surrounding(tokenizer, tokenizer.suffix_ids, ends[0], "after")
    return found | {"tokenizer.ggml.add_bos_token": before, "tokenizer.ggml.add_eos_token": after}


def _surrounding(tokenizer: Tokenizer, ids: tuple[int, ...], role: int | None, where: str) -> bool:
    if ids not in ((), (role,)):
        named = " ".join(str(tokenizer.token(id)) for id in ids)
        raise FormatError(f"the tokenizer writes {named} {where} every text; {_INSTEAD}")
    return bool(ids)


def _sampling(generation: Mapping[str, Any]) -> dict[str, Any]:
    """The model's own sampling defaults; `do_sample: false` is temperature 0."""
    given = dict(generation)
    if given.pop("do_sample", True) is False:
        given["temperature"] = 0
    keys = {ours: theirs for theirs, ours in SAMPLING.items()}
    if lost := sorted(set(given) - set(keys)):
        warnings.warn(f"GGUF has no place for the generation defaults {', '.join(lost)}", stacklevel=4)
    return {
        keys[name]: int(value) if name == "top_k" else float(value)
        for name, value in given.items()
        if name in keys
    }
