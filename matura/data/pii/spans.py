"""Where personal data is in a text: spans, chosen where they overlap, counted, masked."""

from bisect import bisect_left, insort
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EMAIL, PHONE, CARD, IBAN, KEY, SSN, IP = "EMAIL", "PHONE", "CARD", "IBAN", "KEY", "SSN", "IP"
NATIONAL_ID = "NATIONAL_ID"
KINDS = (KEY, EMAIL, IBAN, CARD, SSN, NATIONAL_ID, PHONE, IP)  # where two overlap, the earlier kind here wins


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """text[start:end] is personal data of this kind."""

    start: int
    end: int
    kind: str


def chosen(found: Iterable[Span]) -> list[Span]:
    """Spans in order, none overlapping: of two that do, the one that came first in `found` stays."""
    taken: list[Span] = []
    for span in found:
        at = bisect_left(taken, span)
        clear_before = at == 0 or taken[at - 1].end <= span.start
        clear_after = at == len(taken) or span.end <= taken[at].start
        if span.end > span.start and clear_before and clear_after:
            insort(taken, span)
    return taken


def mask(text: str, spans: Sequence[Span]) -> str:
    """The text with each span replaced by its kind: <EMAIL>, <PHONE>, <CARD>, <IBAN>, <KEY>, <SSN>, ..."""
    return replaced(text, spans, [f"<{span.kind}>" for span in spans])


def replaced(text: str, spans: Sequence[Span], values: Sequence[str]) -> str:
    """The text with each span replaced by its value."""
    pieces: list[str] = []
    at = 0
    for span, value in sorted(zip(spans, values, strict=True)):
        pieces += [text[at : span.start], value]
        at = span.end
    return "".join([*pieces, text[at:]])


def count(spans: Iterable[Span]) -> dict[str, int]:
    """How many of each kind, in the order of KINDS and then of the alphabet, kinds without any left out."""
    listed = [span.kind for span in spans]
    known = [*KINDS, *sorted(set(listed) - set(KINDS))]
    return {kind: listed.count(kind) for kind in known if kind in listed}
