"""The tokenizer and the chat settings that a GGUF file carries in its metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import IntEnum
from typing import Any

import numpy as np
import tokenizers
from tokenizers import AddedToken, decoders, models, normalizers, processors

from matura.core.errors import FormatError
from matura.tokenizer.pretokenizers import BEGIN_BY_DEFAULT, NORMALIZED, WHOLE_WORDS, pre_tokenizer
from matura.tokenizer.tokenizer import Roles, Tokenizer, TokenizerFiles


class TokenType(IntEnum):
    """The values of `tokenizer.ggml.token_type`."""

    NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)


# Tokens that end a turn in well-known templates; older files do not say so in a key of their own.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<end_of_turn>", "<turn|>", "<|end|>", "<|eot|>")
SAMPLING = {
    "general.sampling.temp": "temperature",
    "general.sampling.top_k": "top_k",
    "general.sampling.top_p": "top_p",
    "general.sampling.min_p": "min_p",
    "general.sampling.penalty_repeat": "repetition_penalty",
}


def from_gguf(metadata: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer of a GGUF file, from `Gguf.metadata`.

    Supported kinds: "gpt2" (byte-level BPE) and "llama" (SentencePiece BPE by scores, as in Llama 2 and
    Gemma). Raises FormatError for others, for an unknown pre-tokenizer and for a vocabulary that contradicts
    itself.
    """
    kind = _text(metadata, "tokenizer.ggml.model")
    if kind not in ("gpt2", "llama"):
        raise FormatError(
            f"tokenizers of the kind {kind!r} (tokenizer.ggml.model) are not supported in GGUF files, only "
            "'gpt2' and 'llama'. Use the model's Hugging Face folder instead."
        )
    tokens = _tokens(metadata)
    types = _numbers(metadata, "tokenizer.ggml.token_type", len(tokens), [TokenType.NORMAL] * len(tokens))
    build = _byte_level if kind == "gpt2" else _sentencepiece
    backend = build(metadata, tokens, types)
    roles = Roles(
        bos=_role(metadata, "bos", tokens),
        eos=_role(metadata, "eos", tokens),
        pad=_role(metadata, "padding", tokens),
        unk=_role(metadata, "unknown", tokens),
    )
    _add_tokens(backend, tokens, types)
    _surround(backend, metadata, roles, kind)
    return Tokenizer(backend, roles)


def tokenizer_files(metadata: Mapping[str, Any]) -> TokenizerFiles:
    """Tokenizer, chat template, stop tokens and sampling defaults of a GGUF file. Raises FormatError."""
    tokenizer = from_gguf(metadata)
    template = metadata.get("tokenizer.chat_template")
    if template is not None:
        template = _text(metadata, "tokenizer.chat_template")
    tokens = metadata["tokenizer.ggml.tokens"]
    ends = [_role(metadata, name, tokens) for name in ("eos", "eot", "eom")]
    ends += [token for token in TURN_ENDS if token in (template or "")]
    ids = dict.fromkeys(tokenizer.backend.token_to_id(token) for token in ends if token is not None)
    stops = tuple(id for id in ids if id in tokenizer.special_ids)
    given = {ours: metadata[theirs] for theirs, ours in SAMPLING.items() if theirs in metadata}
    for name, value in given.items():
        if not isinstance(value, int | float):
            raise FormatError(f"the sampling default {name!r} must be a number, not {value!r}.")
    return TokenizerFiles(tokenizer, template, stops, given)


def _byte_level(
    metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]
) -> tokenizers.Tokenizer:
    merges = metadata.get("tokenizer.ggml.merges")
    if not isinstance(merges, list) or not all(isinstance(merge, str) for merge in merges):
        raise FormatError("'tokenizer.ggml.merges' must be a list of texts in a byte-level tokenizer.")
    pairs = []
    for merge in merges:
        left, space, right = merge.partition(" ")
        if not (left and space and right):
            raise FormatError(f"'tokenizer.ggml.merges' must hold pairs like 'a b', not {merge!r}.")
        pairs.append((left, right))
    pre = _text(metadata, "tokenizer.ggml.pre", "default")
    backend = _bpe(tokens, pairs, ignore_merges=pre in WHOLE_WORDS)
    backend.pre_tokenizer = pre_tokenizer(pre)
    if pre in NORMALIZED:
        backend.normalizer = normalizers.NFC()
    backend.decoder = decoders.ByteLevel()
    return backend


def _sentencepiece(
    metadata: Mapping[str, Any], tokens: Sequence[str], types: Sequence[int]
) -> tokenizers.Tokenizer:
    scores = _numbers(metadata, "tokenizer.ggml.scores", len(tokens), None)
    unknown = _role(metadata, "unknown", tokens)
    if unknown is None:
        unknown = next(
            (token for token, type in zip(tokens, types, strict=True) if type == TokenType.UNKNOWN), None
        )
    pairs = merges_by_score(tokens, types, scores)
    backend = _bpe(tokens, pairs, unk_token=unknown, fuse_unk=True, byte_fallback=True)
    prefix = metadata.get("tokenizer.ggml.add_space_prefix", True)
    replace = normalizers.Replace(" ", "▁")
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace]) if prefix else replace
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return backend


def merges_by_score(
    tokens: Sequence[str], types: Sequence[int], scores: Sequence[float]
) -> list[tuple[str, str]]:
    """SentencePiece joins the neighbours whose union has the best score: the same as ranked pairs."""
    normal = {
        token: score
        for token, type, score in zip(tokens, types, scores, strict=True)
        if type in (TokenType.NORMAL, TokenType.USER_DEFINED)
    }
    pairs = []
    for token, score in normal.items():
        for cut in range(1, len(token)):
            left, right = token[:cut], token[cut:]
            if left in normal and right in normal:
                pairs.append((-score, left, right))
    pairs.sort(key=lambda pair: pair[0])  # stable: equal scores stay in the order of the vocabulary
    return [(left, right) for _, left, right in pairs]


def _bpe(tokens: Sequence[str], pairs: list[tuple[str, str]], **settings: Any) -> tokenizers.Tokenizer:
    vocabulary = {token: id for id, token in enumerate(tokens)}
    if len(vocabulary) != len(tokens):
        twice = next(token for id, token in enumerate(tokens) if vocabulary[token] != id)
        raise FormatError(f"'tokenizer.ggml.tokens' holds {twice!r} twice. Download the file again.")
    try:
        return tokenizers.Tokenizer(models.BPE(vocab=vocabulary, merges=pairs, **settings))
    except Exception as error:
        raise FormatError(
            f"the vocabulary and the merges do not fit together: {error}. Download the file again."
        ) from error


def _add_tokens(backend: tokenizers.Tokenizer, tokens: Sequence[str], types: Sequence[int]) -> None:
    added = [
        AddedToken(token, normalized=False, special=type != TokenType.USER_DEFINED)
        for token, type in zip(tokens, types, strict=True)
        if type in (TokenType.CONTROL, TokenType.USER_DEFINED, TokenType.UNKNOWN) and token
    ]
    backend.add_tokens(added)


def _surround(backend: tokenizers.Tokenizer, metadata: Mapping[str, Any], roles: Roles, kind: str) -> None:
    """Begin and end tokens around a plain text, where the file asks for them."""
    begins = kind == "llama" or metadata.get("tokenizer.ggml.pre") in BEGIN_BY_DEFAULT
    before = roles.bos if metadata.get("tokenizer.ggml.add_bos_token", begins) is True else None
    after = roles.eos if metadata.get("tokenizer.ggml.add_eos_token", False) is True else None
    single = ([f"{before}:0"] if before else []) + ["$A:0"] + ([f"{after}:0"] if after else [])
    if len(single) == 1:
        return
    names = [(token, backend.token_to_id(token)) for token in dict.fromkeys((before, after)) if token]
    try:
        backend.post_processor = processors.TemplateProcessing(single=single, special_tokens=names)
    except Exception as error:
        raise FormatError(f"the begin or end token cannot be used: {error}") from error


def _tokens(metadata: Mapping[str, Any]) -> list[str]:
    tokens = metadata.get("tokenizer.ggml.tokens")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(token, str) for token in tokens):
        raise FormatError("'tokenizer.ggml.tokens' must be a list of texts.")
    # Some files pad the vocabulary with empty tokens, and a name is needed for each.
    return [token or f"[empty {id}]" for id, token in enumerate(tokens)]


def _role(metadata: Mapping[str, Any], name: str, tokens: Sequence[str]) -> str | None:
    key = f"tokenizer.ggml.{name}_token_id"
    id = metadata.get(key)
    if id is None or id == 0xFFFFFFFF:  # the format's way to say "none"
        return None
    if type(id) is not int or not 0 <= id < len(tokens):
        raise FormatError(f"{key!r} must be a token from 0 to {len(tokens) - 1}, not {id!r}.")
    return tokens[id]


def _text(metadata: Mapping[str, Any], key: str, default: str | None = None) -> str:
    value = metadata.get(key, default)
    if not isinstance(value, str):
        found = "missing" if value is None else repr(value)[:100]
        raise FormatError(f"{key!r} must be a text in this file's metadata; it is {found}.")
    return value


def _numbers(
    metadata: Mapping[str, Any], key: str, count: int, default: Sequence[int] | None
) -> Sequence[Any]:
    values = metadata.get(key)
    if values is None and default is not None:
        return default
    if not isinstance(values, np.ndarray) or len(values) != count:
        raise FormatError(f"{key!r} must hold one number for each of the {count} tokens.")
    return values.tolist()
