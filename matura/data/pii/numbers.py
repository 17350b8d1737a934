"""Payment cards, bank accounts and US social security numbers."""

import re
from collections.abc import Iterator

from matura.data.pii.spans import CARD, IBAN, SSN, Span

_CARDS = re.compile(r"(?<![\w.+/#-])[0-6][0-9]{3}(?:[ -]?[0-9]){8,15}(?![\w-]|\.[0-9])")
_GROUPS = {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4), (4, 4, 4, 4, 3)}
_MAESTRO = {12, *range(14, 20)}  # with 13, too many are numbers of articles
_NETWORKS = (  # issuer prefixes (low, high) and lengths, from ISO/IEC 7812 registrations
    ("4", "4", {13, 16, 19}),
    ("51", "55", {16}),
    ("2221", "2720", {16}),
    ("34", "34", {15}),
    ("37", "37", {15}),
    ("6011", "6011", {16, 19}),
    ("644", "659", {16, 19}),
    ("300", "305", {14}),
    ("36", "36", {14}),
    ("38", "39", {14}),
    ("35", "35", {16, 19}),
    ("1800", "1800", {15}),
    ("2131", "2131", {15}),
    ("62", "62", {16, 17, 18, 19}),
    ("0604", "0604", _MAESTRO),
    ("50", "50", _MAESTRO),
    ("56", "58", _MAESTRO),
    ("6304", "6304", _MAESTRO),
    ("6390", "6390", _MAESTRO),
    ("67", "67", _MAESTRO),
)


def cards(text: str) -> Iterator[Span]:
    """Card numbers of a known network with a true check digit, solid or in the usual groups."""
    from stdnum import ean, luhn

    for match in _CARDS.finditer(text):
        parts = re.split(r"[ -]", match[0])
        digits = "".join(parts)
        separators = set(re.findall(r"[ -]", match[0]))
        if len(parts) > 1 and (tuple(map(len, parts)) not in _GROUPS or len(separators) > 1):
            continue
        if len(digits) == 13 and ean.is_valid(digits):  # the number of an article or a book
            continue
        if _of_a_network(digits) and len(set(digits)) > 1 and luhn.is_valid(digits):
            yield Span(*match.span(), CARD)


def _of_a_network(digits: str) -> bool:
    return any(
        low <= digits[: len(low)] <= high and len(digits) in lengths for low, high, lengths in _NETWORKS
    )


_IBANS = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}(?![a-z])")


def ibans(text: str) -> Iterator[Span]:
    """International bank account numbers of a known country, length and check number (ISO 13616)."""
    from stdnum import iban

    for match in _IBANS.finditer(text):
        # What follows in capitals may have been taken in: cut at each space, longest first.
        ends = [match.end(), *(match.start() + space.start() for space in re.finditer(" ", match[0]))]
        for end in sorted(ends, reverse=True):
            value = text[match.start() : end].replace(" ", "")
            if len(value) >= 15 and iban.is_valid(value, check_country=False):
                yield Span(match.start(), end, IBAN)
                break


SSNS = re.compile(r"(?<![\w.-])(?!000|666|9)[0-9]{3}([- ]?)(?!00)[0-9]{2}\1(?!0000)[0-9]{4}(?![\w-]|\.[0-9])")
_SSN_WORDS = re.compile(r"\bssns?\b|social.security|soc\.? ?sec", re.IGNORECASE)


def ssns(text: str) -> Iterator[Span]:
    """US social security numbers; they have no check digit, so one is only found near such a word."""
    lowered = text.lower()
    if "ssn" not in lowered and "soc" not in lowered:
        return
    for match in SSNS.finditer(text):
        if _SSN_WORDS.search(text[max(0, match.start() - 60) : match.end() + 30]):
            yield Span(*match.span(), SSN)
