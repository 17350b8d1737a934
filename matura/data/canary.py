"""Canaries: secrets planted a known number of times, so that memorisation can be measured after training.

The method is Carlini et al. 2019 (arXiv:1802.08232): a secret of random digits behind words that occur nowhere else;
a model that has it by heart gives it a far better score than the same words with other digits (`exposure`).
"""

from __future__ import annotations

import hashlib
import heapq
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from matura.core.corpus_settings import Canary as Settings
from matura.core.errors import ConfigError
from matura.core.files import write_json
from matura.core.records import Document
from matura.data.steps import Outcome, Step

FILE = "canaries.json"
DIGITS = 9
"""Digits of a secret: 10^9 equally likely ones, 29.9 bits."""
MARK = "canary: "
"""What every secret begins with."""


@dataclass(frozen=True, slots=True)
class Canary:
    """A secret, how often it is planted, and the ids of the documents that hold it (once each)."""

    secret: str
    rate: int
    documents: tuple[str, ...]


def make(*, ids: Sequence[str], seed: int = 0, **settings: Any) -> Step:
    """The step that plants: settings of `corpus_settings.Canary`; `ids` are those of all documents that are trained on.

    How often a secret occurs is only known when no later step drops documents, so it comes last. Documents that are
    held out must not be among `ids`. Raises as `plan`.
    """
    return _Plant(tuple(plan(ids, seed=seed, **settings)))


def plan(ids: Iterable[str], *, seed: int = 0, **settings: Any) -> list[Canary]:
    """Which secrets go into which documents; `each` secrets for every rate. Another order of ids changes nothing.

    Raises ConfigError when a rate is below 1, given twice, or larger than the number of documents.
    """
    config = Settings(**settings)
    known = set(ids)
    for rate in config.rates:
        if rate < 1 or config.rates.count(rate) > 1:
            raise ConfigError(
                f"canary.rates: {rate} must be at least 1 and given once; give such as [1, 4, 16]"
            )
        if rate > len(known):
            raise ConfigError(
                f"canary.rates: a secret cannot be planted in {rate} documents, there are {len(known)} to train on; "
                "lower the rate or add documents"
            )
    return [
        Canary(secret, rate, tuple(sorted(_first(known, rate, secret))))
        for rate in config.rates
        for secret in (_secret(f"{seed}\n{rate}\n{number}") for number in range(config.each))
    ]


def unplanted(count: int, seed: int = 0) -> list[Canary]:
    """`count` secrets that no plan makes, with rate 0: the control beside planted ones."""
    return [Canary(_secret(f"unplanted\n{seed}\n{number}"), 0, ()) for number in range(count)]


def save(folder: Path, planted: Sequence[Canary]) -> None:
    """Write canaries.json: [{"secret": text, "rate": count, "documents": [ids]}, ...]."""
    write_json(folder / FILE, [asdict(one) for one in planted])


def told(folder: Path) -> dict[str, Any]:
    """What a report may say of canaries.json: numbers, never a secret. Empty when nothing was planted.

    {"file": name, "secrets": count, "rates": {rate: secrets}, "documents": how many hold at least one}.
    """
    if not (folder / FILE).exists():
        return {}
    planted = json.loads((folder / FILE).read_text("utf-8"))
    rates = Counter(one["rate"] for one in planted)
    return {
        "file": FILE,
        "secrets": len(planted),
        "rates": {str(rate): rates[rate] for rate in sorted(rates)},
        "documents": len({id for one in planted for id in one["documents"]}),
    }


@dataclass(frozen=True)
class _Plant:
    planted: tuple[Canary, ...]
    name: str = "canary"

    def __post_init__(self) -> None:
        wanted: dict[str, list[str]] = {}
        for one in self.planted:
            for id in one.documents:
                wanted.setdefault(id, []).append(one.secret)
        object.__setattr__(self, "_wanted", wanted)

    def __call__(self, documents: Sequence[Document]) -> Outcome:
        wanted: Mapping[str, Sequence[str]] = self._wanted  # type: ignore[attr-defined]
        outcome = Outcome()
        for document in documents:
            for secret in wanted.get(document.id, ()):
                document = replace(document, text=plant(document.text, secret))
                outcome.counts["planted"] += 1
            outcome.kept.append(document)
        return outcome


def plant(text: str, secret: str) -> str:
    """The text with a line that is the secret, between two of its lines (or at its end), by a hash of both."""
    lines = text.split("\n")
    place = 1 + _number(f"{secret}\n{text}") % len(lines)
    return "\n".join([*lines[:place], secret, *lines[place:]])


def others(secret: str, count: int, seed: int = 0) -> Iterator[str]:
    """The secret with other digits: what a model that has not seen it finds as likely."""
    prefix = secret[:-DIGITS]
    made = 0
    for number in range(count + 1):
        other = prefix + _digits(f"other\n{seed}\n{number}\n{secret}")
        if other != secret and made < count:
            made += 1
            yield other


def exposure(logprob: float, others: Sequence[float]) -> float:
    """Bits by which a secret stands out: -log2 of its rank among others, as a share (arXiv:1802.08232, section 4.4).

    `logprob` and `others` are total log-probabilities of the secret and of equally long texts (`others`), such as from
    `model.logprobs`. Without memory it is 1.4 on average; the highest value that n others can show is log2(n + 1).
    Ties count against the secret. Raises ValueError without others or for what is not a number.
    """
    if not others or any(math.isnan(value) for value in (logprob, *others)):
        raise ValueError("exposure needs the log-probabilities of at least one other text, none of them NaN")
    rank = 1 + sum(other >= logprob for other in others)
    return math.log2((len(others) + 1) / rank)


def _first(ids: Iterable[str], count: int, secret: str) -> list[str]:
    return heapq.nsmallest(count, ids, key=lambda id: hashlib.sha256(f"{secret}\n{id}".encode()).digest())


def _secret(identity: str) -> str:
    words = (_word(_number(f"word\n{identity}\n{i}")) for i in range(3))
    return f"{MARK}{' '.join(words)} {_digits(identity)}"


def _word(number: int) -> str:
    """A pronounceable word of three syllables that is in no dictionary but by chance."""
    syllables = []
    for _ in range(3):
        number, consonant = divmod(number, 16)
        number, vowel = divmod(number, 5)
        syllables.append("bdfghjklmnprstvz"[consonant] + "aeiou"[vowel])
    return "".join(syllables)


def _digits(identity: str) -> str:
    return f"{_number(f'digits {identity}') % 10**DIGITS:0{DIGITS}d}"


def _number(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode("utf-8", "replace")).digest())
