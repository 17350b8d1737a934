"""Values that stand for others: the same e-mail becomes the same made-up e-mail everywhere, and none is anybody's.

A value is chosen by a keyed hash of what it stands for. Whoever has the key (the seed) can test a guess, so a seed that
is public protects values only from being read, not from being confirmed.

Made up are: addresses at example.com (RFC 2606), phone numbers 555-01xx (kept free for fiction in the North American
plan), cards that begin with 4000 00 (a range for tests) and IBANs of a bank 0000 or TEST, both with right check digits,
social security numbers from 900 on (never issued), and IP addresses for documentation (RFC 5737, RFC 3849).
"""

import hashlib
import hmac
import re
import string
from collections.abc import Iterator, Sequence

from matura.data.pii.spans import CARD, EMAIL, IBAN, IP, KEY, PHONE, SSN, Span, replaced

_SYLLABLES = [a + b for a in "bdfghjklmnprstvz" for b in "aeiou"]


def pseudonymise(text: str, spans: Sequence[Span], seed: int) -> str:
    """The text with a made-up value for each span; equal values (but for case and separators) get equal ones."""
    return replaced(text, spans, [pseudonym(text[one.start : one.end], one.kind, seed) for one in spans])


def pseudonym(value: str, kind: str, seed: int) -> str:
    """A value of the same kind, and of the same form where the kind allows."""
    numbers = _numbers(f"{kind}\n{_essence(value, kind)}", seed)
    if kind == EMAIL:
        return f"{_word(numbers)}.{_word(numbers)}@example.com"
    if kind == PHONE:
        return _phone(value, numbers)
    if kind == CARD:
        return _card(value, numbers)
    if kind == IBAN:
        return _iban(value, numbers)
    if kind == SSN:
        return _filled(value, f"9{_digits(numbers, 8)}")
    if kind == IP:
        return _ip(value, numbers)
    if kind == KEY:
        return _key(value, numbers)
    return _same_form(value, numbers)


def _essence(value: str, kind: str) -> str:
    """What is the same when a value is written in another way."""
    if kind == PHONE:
        digits = re.sub(r"[^0-9]", "", re.split("[xe]", value)[0])
        return digits[-9:]  # with and without the code of the country
    if kind in (EMAIL, IP):
        return value.lower()
    return value if kind == KEY else re.sub(r"[\W_]+", "", value).upper()


def _numbers(identity: str, seed: int) -> Iterator[int]:
    """Bytes without end, of a keyed hash."""
    block = 0
    while True:
        message = f"{block}\n{identity}".encode("utf-8", "replace")
        yield from hmac.digest(f"matura pseudonyms {seed}".encode(), message, hashlib.sha256)
        block += 1


def _digits(numbers: Iterator[int], count: int) -> str:
    return "".join(str(next(numbers) % 10) for _ in range(count))


def _word(numbers: Iterator[int]) -> str:
    return "".join(_SYLLABLES[next(numbers) % len(_SYLLABLES)] for _ in range(3))


def _phone(value: str, numbers: Iterator[int]) -> str:
    area = (
        f"{2 + next(numbers) % 8}{next(numbers) % 9}{next(numbers) % 10}"  # 2-9, 0-8, 0-9: as area codes are
    )
    number = f"{area}55501{_digits(numbers, 2)}"
    form = re.fullmatch(r"(?:\+?1[ .-]?)?\(?[0-9]{3}\)?[ .-]?[0-9]{3}[ .-]?[0-9]{4}", value)
    if form is None:
        return f"+1-{area}-555-{number[-4:]}"
    ten = re.sub(r"[^0-9]", "", value)
    return _filled(value, number if len(ten) == 10 else "1" + number)


def _card(value: str, numbers: Iterator[int]) -> str:
    from stdnum import luhn

    length = sum(character.isdigit() for character in value)
    body = "400000" + _digits(numbers, length - 7)
    return _filled(value, body + luhn.calc_check_digit(body))


def _iban(value: str, numbers: Iterator[int]) -> str:
    """The same country and form; the bank is 0000, or TEST where it has letters; ISO 7064 mod 97-10 gives the check."""
    compact = value.replace(" ", "")
    marks = iter("TEST" * 8)
    account = "".join(
        next(marks) if character.isalpha() else "0" if place < 4 else str(next(numbers) % 10)
        for place, character in enumerate(compact[4:])
    )
    country = compact[:2]
    remainder = int("".join(str(int(one, 36)) for one in f"{account}{country}00")) % 97
    made = iter(f"{country}{98 - remainder:02d}{account}")
    return "".join(character if character == " " else next(made) for character in value)


def _ip(value: str, numbers: Iterator[int]) -> str:
    if ":" in value:
        return f"2001:db8::{next(numbers) << 8 | next(numbers):x}:{next(numbers) << 8 | next(numbers):x}"
    network = ("192.0.2", "198.51.100", "203.0.113")[next(numbers) % 3]
    return f"{network}.{1 + next(numbers) % 254}"


def _key(value: str, numbers: Iterator[int]) -> str:
    if value.startswith("-----BEGIN"):
        return "\n".join(
            line if line.startswith("-----") else _same_form(line, numbers, "+/=")
            for line in value.split("\n")
        )
    known = re.match(r"(?:AKIA|ASIA|AIza|eyJ|github_pat_|[A-Za-z]{2,6}[_-](?:(?:live|test)_)?)?", value)
    begins = known[0] if known else ""
    return begins + _same_form(value[len(begins) :], numbers)


def _same_form(value: str, numbers: Iterator[int], kept: str = "") -> str:
    """A digit for a digit, a letter for a letter of the same case; the rest stays."""
    made = []
    for character in value:
        if character in kept or not character.isalnum():
            made.append(character)
        elif character.isdigit():
            made.append(str(next(numbers) % 10))
        else:
            letters = string.ascii_lowercase if character.islower() else string.ascii_uppercase
            made.append(letters[next(numbers) % 26])
    return "".join(made)


def _filled(form: str, digits: str) -> str:
    """The digits in the places where the form has digits."""
    left = iter(digits)
    return "".join(next(left, "0") if character.isdigit() else character for character in form)
