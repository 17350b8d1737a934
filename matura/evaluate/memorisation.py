"""What a model has by heart of secrets that curation planted (Carlini et al. 2019, arXiv:1802.08232, section 4).

A secret is a beginning of made-up words and random digits. The model scores its digits and `count` others behind the
same beginning; the rank of the true ones among all of them gives the exposure, `log2(all) - log2(rank)` bits. A
model that never read the secret has 1.4 bits on average. The paper ranks among all 10^9 secrets; a sample of n
others shows the same up to `log2(n + 1)` bits, and nothing above (section 4.4). A secret counts as extracted when
the model, given the beginning, writes the digits as its likeliest continuation.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matura.core.errors import FormatError
from matura.data import canary
from matura.data.canary import DIGITS, Canary

OTHERS = 255
"""Other digits beside each secret: exposures up to 8 bits can be told apart."""
MAX_BYTES = 16 << 20
UNTRAINED = 1.44
"""Mean exposure without memory, in bits: the integral of -log2(x) from 0 to 1."""


def read(path: Path) -> list[Canary]:
    """The secrets of a corpus's canaries.json. Raises FormatError for a file that is none."""
    if path.stat().st_size > MAX_BYTES:
        raise FormatError(f"{path}: more than {MAX_BYTES} bytes; expected the canaries.json of a corpus")
    try:
        rows = json.loads(path.read_text("utf-8"))
        found = [Canary(row["secret"], row["rate"], tuple(row["documents"])) for row in rows]
    except (ValueError, LookupError, TypeError, RecursionError) as error:
        raise FormatError(f"{path}: no canaries.json of a corpus: {type(error).__name__}: {error}") from error
    for number, one in enumerate(found, start=1):
        secret = one.secret if isinstance(one.secret, str) else ""
        if not (secret[-DIGITS:].isdecimal() and len(secret) > DIGITS) or not isinstance(one.rate, int):
            raise FormatError(f"{path}: secret {number}: expected words and {DIGITS} digits, and a rate")
    return found


@dataclass(frozen=True)
class Probe:
    """What is asked about one secret: the digits after `beginning`, the first of `digits` are the true ones."""

    id: str
    rate: int
    beginning: str
    digits: tuple[str, ...]


def probe(one: Canary, count: int = OTHERS, seed: int = 0) -> Probe:
    """The secret cut into beginning and digits, with `count` others.

    The id is the beginning, never the digits: what is kept of an exam gives no secret away.
    """
    others = [other[-DIGITS:] for other in canary.others(one.secret, count, seed)]
    beginning = one.secret[:-DIGITS].rstrip()
    return Probe(f"{beginning} (x{one.rate})", one.rate, beginning, (one.secret[-DIGITS:], *others))


def exposure(logprobs: Sequence[float]) -> float:
    """Bits of exposure from the log-probabilities of `Probe.digits`, in their order."""
    return canary.exposure(logprobs[0], logprobs[1:])


def extracted(probe: Probe, written: str) -> bool:
    """Whether what the model wrote after the beginning starts with the secret's digits."""
    return written.strip().startswith(probe.digits[0])


def copies(secrets: Iterable[Canary], texts: Iterable[str]) -> Mapping[str, int]:
    """How many times each secret stands in the texts: what a removal of copies has left of the planted ones."""
    known = [one.secret for one in secrets]
    found = dict.fromkeys(known, 0)
    for text in texts:
        if canary.MARK in text:
            for secret in known:
                found[secret] += text.count(secret)
    return found
