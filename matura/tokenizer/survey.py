"""What a tokenizer does with texts: bytes a token, tokens a word, what it cannot write, what it never uses."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from matura.core.grouping import filled
from matura.tokenizer.tokenizer import Tokenizer

GROUP_BYTES = 1 << 20
LONGEST = 20


@dataclass(frozen=True, slots=True)
class Text:
    """A text and where it belongs."""

    text: str
    source: str
    language: str


@dataclass(slots=True)
class Count:
    """Of some texts."""

    documents: int = 0
    bytes: int = 0
    words: int = 0
    tokens: int = 0
    unknown: int = 0
    exact: int = 0

    def told(self) -> dict[str, float | int]:
        """The counts and their ratios. `unknown` is the share of tokens, `exact` the share of texts that come back from
        their ids as they were."""
        return {
            "documents": self.documents,
            "bytes": self.bytes,
            "tokens": self.tokens,
            "bytes_per_token": self.bytes / max(1, self.tokens),
            "tokens_per_word": self.tokens / max(1, self.words),
            "unknown": self.unknown / max(1, self.tokens),
            "exact": self.exact / max(1, self.documents),
        }


@dataclass(slots=True)
class Survey:
    """The counts of all texts, by source and by language, and how often each token was used."""

    used: np.ndarray[Any, Any]
    whole: Count = field(default_factory=Count)
    sources: dict[str, Count] = field(default_factory=dict)
    languages: dict[str, Count] = field(default_factory=dict)
    seconds: float = 0.0

    def told(self) -> dict[str, Any]:
        """As JSON values; groups in the order of their names."""
        groups: Mapping[str, Mapping[str, Count]] = {"sources": self.sources, "languages": self.languages}
        return {
            **self.whole.told(),
            "vocabulary": len(self.used),
            "seconds": self.seconds,
            **{
                key: {name: one.told() for name, one in sorted(group.items())}
                for key, group in groups.items()
            },
        }


def survey(tokenizer: Tokenizer, texts: Iterable[Text]) -> Survey:
    """Encode and decode every text. Words are what stands between spaces."""
    found = Survey(np.zeros(tokenizer.vocab_size, dtype=np.int64))
    for group in filled(texts, GROUP_BYTES, lambda one: len(one.text)):
        start = time.perf_counter()
        encoded = tokenizer.encode_batch([one.text for one in group])
        found.seconds += time.perf_counter() - start
        for one, ids in zip(group, encoded, strict=True):
            found.used += np.bincount(np.array(ids, dtype=np.int64), minlength=len(found.used))
            unknown = 0 if tokenizer.unk_id is None else ids.count(tokenizer.unk_id)
            exact = tokenizer.decode(ids) == one.text
            places = (
                found.whole,
                found.sources.setdefault(one.source, Count()),
                found.languages.setdefault(one.language, Count()),
            )
            for count in places:
                count.documents += 1
                count.bytes += len(one.text.encode())
                count.words += len(one.text.split())
                count.tokens += len(ids)
                count.unknown += unknown
                count.exact += exact
    return found


def unused(tokenizer: Tokenizer, used: np.ndarray[Any, Any]) -> dict[str, Any]:
    """Share of tokens, special ones aside, that no text used, and some of them."""
    special = tokenizer.special_ids
    idle = [id for id in np.flatnonzero(used == 0).tolist() if id not in special]
    examples = [tokenizer.token(id) or "" for id in idle[:: max(1, len(idle) // LONGEST)][:LONGEST]]
    return {"share": len(idle) / max(1, len(used) - len(special)), "tokens": len(idle), "examples": examples}


def longest(tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """The tokens that stand for the most bytes."""
    sized = sorted(
        (-len(tokenizer.token_bytes(id)), id)
        for id in range(tokenizer.vocab_size)
        if id not in tokenizer.special_ids
    )
    return [
        {"id": id, "bytes": -size, "text": tokenizer.token_bytes(id).decode("utf-8", "replace")}
        for size, id in sized[:LONGEST]
    ]
