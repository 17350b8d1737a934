"""Phone numbers: by the plans of libphonenumber, or behind a word such as "Tel."."""

import re
from collections.abc import Iterator

from matura.data.pii.spans import PHONE, Span

_EXTENSION = r"(?:[ ]?(?:x|ext\.?|extension)[ ]?[0-9]{1,6})?"
_INTERNATIONAL = re.compile(
    r"(?<![\w.+/-])(?:\((?=\+[0-9]{1,3}\))\+|\+|00[ -]?)[1-9](?:[ ().\-/]{0,3}[0-9]){6,14}"
    + _EXTENSION
    + r"(?!\w|-[0-9]|[.:][0-9]|\s?[*^])"
)
_AMERICAN = re.compile(
    r"(?<![\w.+/=-])(?:1[ -])?(?:\([2-9][0-9]{2}\) ?|[2-9][0-9]{2}-)[2-9][0-9]{2}-[0-9]{4}"
    + _EXTENSION
    + r"(?![\w-]|[.:][0-9])"
)
_WORDS = [
    "phone",
    "tele",
    "tel",
    "fax",
    "mobil",
    "hotline",
    "whatsapp",
    "call",
    "dial",
    "cell",
    "handy",
    "puh",
    "dzwo",
    "sms",
    "☎",
    "電話",
]
_CANDIDATE = re.compile(
    r"(?<![\w+/-])\(?\+?\(?[0-9](?:[ ().\-/]{0,3}[0-9]){6,14}" + _EXTENSION + r"(?![\w-]|[.:][0-9])"
)
_WORD_BEFORE = re.compile(
    r"(?i:\b(?:tele|mobile |smart|cell ?)?phones?\b|\btel\b|\bmobile?\b|\b(?:tele)?fax\b|\bhotline\b|\bwhatsapp\b"
    r"|\bcall(?:ed|ing)? (?:me|us|him|her|them|at|on)\b|\bdial\b|\bcell\b|\bsms\b|\bhandy(?:nummer)?\b"
    r"|\btelefon\w{0,8}\b|\bt[eé]l[eé]phone\b|\btel[eé]fono\b|\btelefoon\w{0,8}\b|\btelem[oó]vel\b|\bm[oó]vil\b"
    r"|\bcell?ular\w?\b|\bmobil\w{0,8}\b|\bpuhelin\w{0,8}\b|☎|電話)[^0-9\n+(]{0,20}$"
)
_BEFORE = 45  # characters in which the word must be
_NOT_DIALLED = re.compile(
    r"(?:19|20)[0-9]{2}[-./][0-9]{1,2}[-./][0-9]{1,2}(?:[ T][0-9]{1,2})?"
    r"|[0-9]{1,2}[-./][0-9]{1,2}[-./](?:19|20)[0-9]{2}"
    r"|(?:[0-9]{1,3}\.){3}[0-9]{1,3}|(?:19|20)[0-9]{2}(?:0[1-9]|1[0-2])[0-3][0-9](?:[0-9]{6})?"
    r"|(?:19|20)[0-9]{2} ?[-/] ?(?:19|20)[0-9]{2}"
)


def phones(text: str) -> Iterator[Span]:
    """International numbers, American ones in their usual form, and any number behind a word for phone."""
    if "+" in text or "00" in text:
        for match in _INTERNATIONAL.finditer(text):
            if _international(text, match):
                yield Span(*match.span(), PHONE)
    for match in _AMERICAN.finditer(text) if "-" in text else ():
        if _valid(match[0], "US"):
            yield Span(*match.span(), PHONE)
    lowered = text.lower()
    if any(word in lowered for word in _WORDS):
        for match in _CANDIDATE.finditer(text):
            before = text[max(0, match.start() - _BEFORE) : match.start()]
            if _WORD_BEFORE.search(before) and not _NOT_DIALLED.fullmatch(match[0]):
                open_ended = match[0].count("(") > match[0].count(")")
                yield Span(match.start() + open_ended, match.end(), PHONE)


def _international(text: str, match: re.Match[str]) -> bool:
    written = match[0]
    if written.startswith("00"):
        # Zeros begin many other numbers: only one that is written in groups is read as dialled.
        return re.search(r"[0-9][ \-/][0-9]", written) is not None and _valid("+" + written[2:])
    if _valid(written):
        return True
    # Outside the plan of its country, but as long as numbers there are, and in groups: not a sum, not a patch.
    grouped = re.search(r"[0-9][)]?[ \-/.(][(]?[0-9]", written) is not None
    after_a_term = re.search(r"[0-9)\]]\s{0,3}$", text[max(0, match.start() - 4) : match.start()]) is not None
    return grouped and not after_a_term and _possible(written)


def _valid(number: str, region: str | None = None) -> bool:
    import phonenumbers

    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(number, region)))
    except phonenumbers.NumberParseException:
        return False


def _possible(number: str) -> bool:
    import phonenumbers

    try:
        return bool(phonenumbers.is_possible_number(phonenumbers.parse(number)))
    except phonenumbers.NumberParseException:
        return False
