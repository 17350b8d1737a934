"""How byte-level tokenizers cut a text into words before BPE, by the names that GGUF files use.

The patterns are those of the models' own tokenizer.json files; a model is only understood with its own.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Mapping
from typing import Any

from tokenizers import Regex, pre_tokenizers

from matura.core.errors import FormatError

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_SPACES = r"\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT_2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA_3 = (
    rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
)
_QWEN_2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}| ?[^\s\p{{L}}\p{{N}}]+[\r\n]*|{_SPACES}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_WORD = r"[^\r\n\p{L}\p{N}]?"
_REST = rf" ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|{_SPACES}"
_TEKKEN = rf"{_WORD}{_UPPER}*{_LOWER}+|{_WORD}{_UPPER}+{_LOWER}*|\p{{N}}|{_REST}"
_GPT_4O = (
    rf"{_WORD}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_WORD}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}|{_REST}"
)
_DIGITS = r"\p{N}"

_PATTERNS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell"), (_DIGITS, _GPT_2)),
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "roberta-bpe", "modern-bert", "exaone4"), (_GPT_2,)),
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2"), (_LLAMA_3,)),
    **dict.fromkeys(("smaug-bpe", "dbrx"), (_LLAMA_3,)),
    **dict.fromkeys(("qwen2", "stablelm2", "deepseek-r1-qwen"), (_QWEN_2,)),
    "tekken": (_TEKKEN,),
    "gpt-4o": (_GPT_4O,),
    # What llama.cpp uses for old files that do not say.
    "default": (r"[\p{P}\$\+<=>\^~\|]+", _GPT_2, r"\p{N}+", "[0-9][0-9][0-9]"),
}
WHOLE_WORDS = frozenset({"llama-bpe", "llama3", "llama-v3", "falcon3", "pixtral", "lfm2", "tekken"})
"""Here a word that is a token as it stands is taken without merging."""
BEGIN_BY_DEFAULT = WHOLE_WORDS
"""Here a text starts with the begin token unless the file says otherwise."""
NORMALIZED = frozenset({"qwen2", "deepseek-r1-qwen"})
"""Here the text is brought to Unicode's form NFC first."""


def pre_tokenizer(name: str) -> pre_tokenizers.PreTokenizer:
    """The pre-tokenizer of that name (`tokenizer.ggml.pre`). Raises FormatError when it is unknown."""
    patterns = _PATTERNS.get(name)
    if patterns is None:
        near = difflib.get_close_matches(name, _PATTERNS, n=1)
        hint = f" (near: {near[0]!r})" if near else ""
        raise FormatError(
            f"the pre-tokenizer {name!r} (tokenizer.ggml.pre) is not known{hint}. With another one the model "
            f"would read wrong tokens. Known: {', '.join(sorted(_PATTERNS))}. "
            "Use the model's Hugging Face folder instead."
        )
    steps = [
        pre_tokenizers.Digits(individual_digits=True)
        if pattern == _DIGITS
        else pre_tokenizers.Split(Regex(pattern), "isolated")
        for pattern in patterns
        if pattern != _GPT_2 or pattern != patterns[-1]
    ]
    # GPT-2's own pattern is built into the byte-level step.
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=patterns[-1] == _GPT_2)
    return pre_tokenizers.Sequence([*steps, byte_level]) if steps else byte_level


def name(settings: Mapping[str, Any] | None, *, whole_words: bool, normalized: bool) -> str:
    """The name of a pre-tokenizer, given as in tokenizer.json. Raises FormatError when it has none.

    Of several names for the same cuts the first is taken; it must also say whether words that are tokens are
    taken whole, and texts brought to NFC.
    """
    for known in _PATTERNS:
        if (known in WHOLE_WORDS) == whole_words and (known in NORMALIZED) == normalized:
            theirs = json.loads(pre_tokenizer(known).__getstate__())
            if settings is not None and _cuts(settings) == _cuts(theirs):
                return known
    raise FormatError(
        "the way the tokenizer cuts texts into words has no name in GGUF files (tokenizer.ggml.pre); with another "
        "one other programs would read wrong tokens. Write the Hugging Face layout instead"
    )


def _cuts(settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer without what changes no token."""
    steps = settings["pretokenizers"] if settings["type"] == "Sequence" else [settings]
    return [{key: value for key, value in step.items() if key != "trim_offsets"} for step in steps]
