"""Find and mask personal data and secrets: e-mail, phone, payment card, IBAN, social security number, keys.

Patterns only propose; where a checksum or a numbering plan exists it decides (Luhn, ISO 13616, the phone
plans of libphonenumber), so versions, dates, ISBNs and hashes are left alone. Names and street addresses are
not looked for.
"""

import ipaddress
import re
from bisect import bisect_left, insort
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

EMAIL, PHONE, CARD, IBAN, KEY, SSN, IP = "EMAIL", "PHONE", "CARD", "IBAN", "KEY", "SSN", "IP"
KINDS = (KEY, EMAIL, IBAN, CARD, SSN, PHONE, IP)  # where two overlap, the earlier kind here wins


@dataclass(frozen=True, slots=True, order=True)
class Span:
    """text[start:end] is personal data of this kind."""

    start: int
    end: int
    kind: str


def find(text: str, *, ip: bool = False) -> list[Span]:
    """Personal data in a text as spans in order, none overlapping. `ip` adds public IPv4 addresses."""
    found = [_keys(text), _emails(text), _ibans(text), _cards(text), _ssns(text), _phones(text)]
    if ip:
        found.append(_addresses(text))
    taken: list[Span] = []
    for spans in found:
        for span in spans:
            at = bisect_left(taken, span)
            clear_before = at == 0 or taken[at - 1].end <= span.start
            clear_after = at == len(taken) or span.end <= taken[at].start
            if span.end > span.start and clear_before and clear_after:
                insort(taken, span)
    return taken


def mask(text: str, spans: Sequence[Span]) -> str:
    """The text with each span replaced by its kind: <EMAIL>, <PHONE>, <CARD>, <IBAN>, <KEY>, <SSN>, <IP>."""
    pieces: list[str] = []
    at = 0
    for span in sorted(spans):
        pieces += [text[at : span.start], f"<{span.kind}>"]
        at = span.end
    return "".join([*pieces, text[at:]])


# --- e-mail ---

ADDRESS = re.compile(
    r"(?<![\w.%+'-])(?P<name>[\w%+'-](?:[\w.%+'-]{0,62}[\w%+-])?)"
    r"@(?P<domain>(?:[^\W_](?:[^\W_]|-){0,62}\.){1,8}(?P<top>[^\W\d_]{2,24}))(?![\w@-])"
)
FILE_ENDINGS = {
    "png",
    "jpg",
    "jpeg",
    "gif",
    "svg",
    "webp",
    "js",
    "ts",
    "css",
    "html",
    "json",
    "yaml",
    "yml",
    "toml",
}


def _emails(text: str) -> Iterator[Span]:
    if "@" not in text:
        return
    for match in ADDRESS.finditer(text):
        start, end = match.span()
        if match["top"].lower() in FILE_ENDINGS:  # icon@2x.png
            continue
        if text[end : end + 1] == "(" or re.match(r"\.\w", text[end : end + 2]):  # a @ b.mean(), a@b.c_d
            continue
        if re.match(r":[^\s\d)\]]", text[end : end + 2]):  # git@host.org:group/project.git
            continue
        if re.search(r"://\S{0,200}$", text[max(0, start - 210) : start]):  # ssh://git@host.org/project
            continue
        if match["name"].startswith("'"):
            start += len(match["name"]) - len(match["name"].lstrip("'"))
        yield Span(start, end, EMAIL)


# --- keys and secrets ---

KEYS = re.compile(
    r"""(?<![A-Za-z0-9_-])(?:
      (?:AKIA|ASIA)[A-Z2-7]{16}                                                   # Amazon
    | gh[pousr]_[A-Za-z0-9]{36,251} | github_pat_[A-Za-z0-9_]{22,251}             # GitHub
    | glpat-[A-Za-z0-9_-]{20,64}                                                  # GitLab
    | AIza[A-Za-z0-9_-]{35}                                                       # Google
    | xox[abeoprs]-[A-Za-z0-9-]{10,250}                                           # Slack
    | [sr]k_(?:live|test)_[A-Za-z0-9]{16,250}                                     # Stripe
    | hf_[A-Za-z0-9]{30,100}                                                      # Hugging Face
    | npm_[A-Za-z0-9]{36} | pypi-[A-Za-z0-9_-]{60,500}                            # package registries
    | eyJ[A-Za-z0-9_-]{8,4000}\.eyJ[A-Za-z0-9_-]{8,8000}\.[A-Za-z0-9_-]{8,4000}   # JSON web tokens
    | (?P<sk>sk-[A-Za-z0-9_-]{20,250})                                            # OpenAI and others
    )(?![A-Za-z0-9_-])""",
    re.VERBOSE,
)
PRIVATE_KEY = re.compile(r"-----BEGIN (?P<what>[A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?)-----")
AMAZON_SECRET = re.compile(
    r"(?i:secret_?access_?key)[\"']?\s{0,4}[:=]\s{0,4}[\"']?([A-Za-z0-9/+]{40})(?![A-Za-z0-9/+=])"
)
SLACK_HOOK = re.compile(r"https://hooks\.slack\.com/services/[A-Za-z0-9]+/[A-Za-z0-9]+/[A-Za-z0-9]+")
MAX_PRIVATE_KEY = 20_000


def _keys(text: str) -> Iterator[Span]:
    for match in KEYS.finditer(text):
        # CSS classes and slugs begin with "sk-" too; a key has digits all over it.
        if match["sk"] is None or sum(character.isdigit() for character in match["sk"]) >= 4:
            yield Span(*match.span(), KEY)
    for match in AMAZON_SECRET.finditer(text):
        yield Span(*match.span(1), KEY)
    for match in SLACK_HOOK.finditer(text):
        yield Span(*match.span(), KEY)
    for match in PRIVATE_KEY.finditer(text):
        closing = f"-----END {match['what']}-----"
        end = text.find(closing, match.end(), match.end() + MAX_PRIVATE_KEY)
        if end >= 0:
            yield Span(match.start(), end + len(closing), KEY)
        elif lines := re.compile(r"(?:\s{1,80}[A-Za-z0-9+/=]{20,100}){1,400}").match(text, match.end()):
            yield Span(match.start(), lines.end(), KEY)


# --- numbers with a checksum ---

CARDS = re.compile(r"(?<![\w.+/#-])[2-6]\d{3}(?:[ -]?\d){9,15}(?![\w-]|\.\d)")
GROUPS = {(4, 4, 4, 4), (4, 6, 5), (4, 6, 4), (4, 4, 4, 4, 3)}
NETWORKS = (  # issuer prefixes (low, high) and lengths, from ISO/IEC 7812 registrations
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
    ("3528", "3589", {16, 19}),
    ("62", "62", {16, 17, 18, 19}),
)


def _cards(text: str) -> Iterator[Span]:
    from stdnum import luhn

    for match in CARDS.finditer(text):
        parts = re.split(r"[ -]", match[0])
        digits = "".join(parts)
        separators = set(re.findall(r"[ -]", match[0]))
        if len(parts) > 1 and (tuple(map(len, parts)) not in GROUPS or len(separators) > 1):
            continue
        if _of_a_network(digits) and len(set(digits)) > 1 and luhn.is_valid(digits):
            yield Span(*match.span(), CARD)


def _of_a_network(digits: str) -> bool:
    return any(
        low <= digits[: len(low)] <= high and len(digits) in lengths for low, high, lengths in NETWORKS
    )


IBANS = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?: ?[A-Z0-9]){11,30}(?![a-z])")


def _ibans(text: str) -> Iterator[Span]:
    from stdnum import iban

    for match in IBANS.finditer(text):
        # What follows in capitals may have been taken in: cut at each space, longest first.
        ends = [match.end(), *(match.start() + space.start() for space in re.finditer(" ", match[0]))]
        for end in sorted(ends, reverse=True):
            if end - match.start() >= 15 and iban.is_valid(text[match.start() : end].replace(" ", "")):
                yield Span(match.start(), end, IBAN)
                break


# --- numbers that need words beside them ---

SSNS = re.compile(r"(?<![\w.-])(?!000|666|9)\d{3}([- ]?)(?!00)\d{2}\1(?!0000)\d{4}(?![\w-]|\.\d)")
SSN_WORDS = re.compile(r"\bssns?\b|social.security|soc\.? ?sec", re.IGNORECASE)


def _ssns(text: str) -> Iterator[Span]:
    if not SSN_WORDS.search(text):
        return
    for match in SSNS.finditer(text):
        if SSN_WORDS.search(text[max(0, match.start() - 60) : match.end() + 30]):
            yield Span(*match.span(), SSN)


INTERNATIONAL = re.compile(
    r"(?<![\w.+/-])(?:\+|00[ -]?)[1-9](?:[ ().\-/]{0,3}\d){6,14}(?!\w|-\d|[.:]\d|\s?[*^])"
)
AMERICAN = re.compile(
    r"(?<![\w.+/=-])(?:1[ -])?(?:\([2-9]\d{2}\) ?|[2-9]\d{2}-)[2-9]\d{2}-\d{4}(?![\w-]|[.:]\d)"
)
NATIONAL = re.compile(
    r"(?<![\w.+/-])(?:\(?0\d{1,5}\)?|\(?[1-9]\d{1,3}\)?)(?:[ .\-/]{1,2}\d{2,8}){1,5}(?![\w-]|[.:]\d)"
)
PHONE_WORDS = re.compile(
    r"(?i:\b(?:tele)?phones?\b|\btel\b|\bmobile\b|\bfax\b|\bhotline\b|\bwhatsapp\b|\bcall (?:me|us|at)\b"
    r"|\btelefon\b|\bt[eé]l[eé]phone\b|\btel[eé]fono\b|☎)[^\d\n]{0,20}$"
)
DATE_OR_ADDRESS = re.compile(r"(?:19|20)\d\d[-./]\d\d?[-./]\d\d?|(?:\d{1,3}\.){3}\d{1,3}")


def _phones(text: str) -> Iterator[Span]:
    for match in INTERNATIONAL.finditer(text):
        written = match[0]
        if written.startswith("00"):
            # Zeros begin many other numbers: only one that is written in groups is read as dialled.
            if not re.search(r"\d[ \-/]\d", written):
                continue
            written = "+" + written[2:]
        if _dialled(written):
            yield Span(*match.span(), PHONE)
    for match in AMERICAN.finditer(text):
        if _dialled(match[0], "US"):
            yield Span(*match.span(), PHONE)
    for match in NATIONAL.finditer(text):
        digits = sum(character.isdigit() for character in match[0])
        if DATE_OR_ADDRESS.fullmatch(match[0]):
            continue
        if 7 <= digits <= 13 and PHONE_WORDS.search(text[max(0, match.start() - 40) : match.start()]):
            yield Span(*match.span(), PHONE)


def _dialled(number: str, region: str | None = None) -> bool:
    import phonenumbers

    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(number, region)))
    except phonenumbers.NumberParseException:
        return False


ADDRESSES = re.compile(r"(?<![\w.-])(?:\d{1,3}\.){3}\d{1,3}(?![\w-]|\.\d)")


def _addresses(text: str) -> Iterator[Span]:
    for match in ADDRESSES.finditer(text):
        try:
            public = ipaddress.IPv4Address(match[0]).is_global
        except ValueError:
            continue
        if public:
            yield Span(*match.span(), IP)


def count(spans: Iterable[Span]) -> dict[str, int]:
    """How many of each kind, in the order of KINDS, kinds without any left out."""
    listed = [span.kind for span in spans]
    return {kind: listed.count(kind) for kind in KINDS if kind in listed}
