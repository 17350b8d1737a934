"""How many sentences a passage has.

A sentence ends at a full stop, a question mark or an exclamation mark (and quotes or brackets that close after it)
before a space or the end. A full stop does not end one after a title (Dr.), a single initial (J. Smith) or the
number of a list item (1.), nor after another known abbreviation (e.g.) unless a capital follows. Text after the last
end counts as one.
"""

from __future__ import annotations

import re

_END = re.compile(r"(?P<word>\S*?)(?P<marks>[.!?…]+)[\"'”’)\]*_]*$")
_TITLES = "mr mrs ms dr prof rev hon st sr jr gen col capt lt sgt gov sen rep pres vs"
_BEFORE_NUMBERS = "no nos fig vol p pp ch"
_SHORT = "etc al approx dept est inc ltd co corp jan feb mar apr jun jul aug sep sept oct nov dec"
_DOTTED = re.compile(r"(?:[a-z]\.)+[a-z]", re.IGNORECASE)  # e.g  i.e  U.S  a.m
_NUMBER = re.compile(r"\d+|[ivx]+|[a-z]", re.IGNORECASE)
_OPENING = "\"'“‘([*_#-"


def sentences(text: str) -> int:
    """The number of sentences; 0 of a text without letters and digits."""
    count, pending = 0, False
    for line in text.splitlines():
        words = line.split()
        for place, word in enumerate(words):
            following = words[place + 1] if place + 1 < len(words) else ""
            pending = pending or any(map(str.isalnum, word))
            if pending and _ends(word, following, first=place == 0):
                count, pending = count + 1, False
    return count + pending


def _ends(word: str, following: str, *, first: bool) -> bool:
    """Whether a sentence ends with this word. `first`: it begins its line."""
    match = _END.search(word)
    if match is None:
        return False
    if match["marks"] != ".":
        return True
    before = match["word"].strip(_OPENING).lower()
    if following and (
        before in _TITLES.split() or (before in _BEFORE_NUMBERS.split() and following[:1].isdigit())
    ):
        return False
    if first and following and _NUMBER.fullmatch(before):
        return False  # "1." or "b." at the beginning of a line
    if len(before) == 1 and before.isalpha() and before != "i" and following:
        return False
    if before in _SHORT.split() or _DOTTED.fullmatch(before):
        return not following or following.lstrip(_OPENING)[:1].isupper()
    return True
