"""Keys and secrets: those with known beginnings, and assignments of what looks like chance."""

import math
import re
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise

from matura.data.pii.spans import KEY, Span

_KNOWN = re.compile(
    r"""(?<![A-Za-z0-9_-])(?:
      (?:AKIA|ASIA)[A-Z2-7]{16}                                                   # Amazon
    | gh[pousr]_[A-Za-z0-9]{36,251} | github_pat_[A-Za-z0-9_]{22,251}             # GitHub
    | glpat-[A-Za-z0-9_-]{20,64}                                                  # GitLab
    | AIza[A-Za-z0-9_-]{35} | GOCSPX-[A-Za-z0-9_-]{20,40}                         # Google
    | xox[abeoprs]-[A-Za-z0-9-]{10,250} | xapp-[A-Za-z0-9-]{10,250}               # Slack
    | (?:[sr]k_(?:live|test)|whsec)_[A-Za-z0-9]{16,250}                           # Stripe
    | hf_[A-Za-z0-9]{30,100}                                                      # Hugging Face
    | npm_[A-Za-z0-9]{36} | pypi-[A-Za-z0-9_-]{60,500}                            # package registries
    | eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]{8,4000}   # JSON web tokens
    | (?P<sk>sk-[A-Za-z0-9_-]{20,250})                                            # OpenAI and others
    )(?![A-Za-z0-9_-])""",
    re.VERBOSE,
)
_BEGINNINGS = (
    "AKIA",
    "ASIA",
    "ghp_",
    "gho_",
    "ghu_",
    "ghs_",
    "ghr_",
    "github_pat_",
    "glpat-",
    "AIza",
    "GOCSPX-",
    "xox",
    "xapp-",
    "k_live_",
    "k_test_",
    "whsec_",
    "hf_",
    "npm_",
    "pypi-",
    "eyJ",
    "sk-",
)
_PRIVATE_KEY = re.compile(r"-----BEGIN (?P<what>[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?)-----")
_BODY = re.compile(r"(?:\s{1,80}[A-Za-z0-9+/=]{20,100}){1,400}")
_AMAZON_SECRET = re.compile(
    r"(?i:secret_?access_?key)[\"']?\s{0,4}[:=]\s{0,4}[\"']?([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
)
_SLACK_HOOK = re.compile(r"https://hooks\.slack\.com/services/[A-Za-z0-9]+/[A-Za-z0-9]+/[A-Za-z0-9]+")
_MAX_PRIVATE_KEY = 20_000

_WORDS = ("passw", "pwd", "passphrase", "secret", "token", "key")
_NAMED = re.compile(
    r"(?:passw(?:or)?d|pwd|passphrase|secret(?:[_-]?key)?|token|(?:api|access|auth|private|account|encryption)[_-]?key)"
    r"[\"']?[ \t]{0,4}:?$",
    re.IGNORECASE,
)
_ASSIGNED = re.compile(
    r"[:=](?![:=])>?[ \t]{0,4}(?:(?P<quote>[\"'`])(?P<quoted>[^\s\"'`]{8,200})(?P=quote)|(?P<bare>[^\s\"'`<>]{8,200}))"
)
_BEFORE = 24  # characters of a name
_IS_CODE = re.compile(r"[$%{(\[<*]|https?:|[A-Za-z_][\w.]*(?:[(\[].*|;)$|.*[a-z]\(")
_IS_NAME = re.compile(r"[A-Za-z_][\w.]*")
_IS_MADE_UP = re.compile(
    r"x{4,}|\.{3}|\*{3}|your|example|changeme|placeholder|dummy|123456|abcdef", re.IGNORECASE
)
LEAST_ENTROPY = 2.75
"""Bits per character, from the value's own letters: eight different ones have 3, words and repeats less."""


def keys(text: str) -> Iterator[Span]:
    """Secrets of known forms, private key blocks, and values of chance that are assigned to password, token, ..."""
    if any(beginning in text for beginning in _BEGINNINGS):
        for match in _KNOWN.finditer(text):
            # CSS classes and slugs begin with "sk-" too; a key has digits all over it.
            if match["sk"] is None or sum(map(str.isdigit, match["sk"])) >= 4 or _restless(match["sk"][8:]):
                yield Span(*match.span(), KEY)
    if "hooks.slack.com" in text:
        for match in _SLACK_HOOK.finditer(text):
            yield Span(*match.span(), KEY)
    if "PRIVATE KEY" in text:
        yield from _blocks(text)
    if "=" in text or ":" in text:
        lowered = text.lower()
        if "access" in lowered:
            for match in _AMAZON_SECRET.finditer(text):
                yield Span(*match.span(1), KEY)
        if any(word in lowered for word in _WORDS):
            yield from _assigned(text)


def _blocks(text: str) -> Iterator[Span]:
    for match in _PRIVATE_KEY.finditer(text):
        closing = f"-----END {match['what']}-----"
        end = text.find(closing, match.end(), match.end() + _MAX_PRIVATE_KEY)
        if end >= 0:
            yield Span(match.start(), end + len(closing), KEY)
        elif lines := _BODY.match(text, match.end()):
            yield Span(match.start(), lines.end(), KEY)


def _assigned(text: str) -> Iterator[Span]:
    for match in _ASSIGNED.finditer(text):
        if not _NAMED.search(text[max(0, match.start() - _BEFORE) : match.start()]):
            continue
        group = "quoted" if match["quoted"] is not None else "bare"
        value = match[group] if group == "quoted" else match[group].rstrip(".,;:)]}")
        if group == "bare" and (
            _IS_CODE.match(value) or (_IS_NAME.fullmatch(value) and not _restless(value))
        ):
            continue
        if _by_chance(value):
            yield Span(match.start(group), match.start(group) + len(value), KEY)


def _by_chance(value: str) -> bool:
    """Letters and digits mixed (or three kinds of characters), and no word a person would put in an example."""
    if len(value) < 8 or _IS_MADE_UP.search(value):
        return False
    kinds = (str.islower, str.isupper, str.isdigit, lambda one: not one.isalnum() and one not in "_-./ ")
    present = [any(map(kind, value)) for kind in kinds]
    return present[2] and sum(present) >= 2 and not _plain_word(value) and entropy(value) >= LEAST_ENTROPY


def _restless(value: str) -> bool:
    """Whether small letters, capitals and digits change as often as by chance, not as in a name of a program."""
    kinds = [(one.isdigit(), one.isupper()) for one in value]
    return sum(a != b for a, b in pairwise(kinds)) >= 0.3 * len(value)


def _plain_word(value: str) -> bool:
    """A word with a number at its end, a version, a date or a path is not by chance."""
    if "/" in value and sum(character.isdigit() for character in value) < 3:  # a path
        return True
    if re.fullmatch(r"[A-Za-z_.-]+[0-9]{1,4}", value):
        return not _restless(value)
    return re.fullmatch(r"v?[0-9][0-9.:T/_+-]*Z?[a-z]?", value) is not None


def entropy(text: str) -> float:
    """Shannon entropy of the characters, in bits per character."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)
