"""All that is looked for in one text."""

import re
from collections.abc import Iterable, Iterator, Sequence

from matura.data.pii.addresses import emails, ip_addresses
from matura.data.pii.identifiers import national_ids as _national_ids
from matura.data.pii.numbers import cards, ibans, ssns
from matura.data.pii.phones import phones
from matura.data.pii.secrets import keys
from matura.data.pii.spans import Span, chosen

_NUMBERS = re.compile(r"[0-9]{3}|[0-9][ ().\-/][0-9]")


def find(
    text: str, *, ip: bool = False, national_ids: Sequence[str] = (), more: Iterable[Span] = ()
) -> list[Span]:
    """Personal data in a text as spans in order, none overlapping.

    `ip` adds public IPv4 and IPv6 addresses, `national_ids` the personal numbers of these countries (ISO 3166, of
    `identifiers.COUNTRIES`), `more` what someone else has found (it stays where nothing else is). Raises ConfigError
    for an unknown country.
    """
    return chosen(_all(text, ip, national_ids, more))


def _all(text: str, ip: bool, countries: Sequence[str], more: Iterable[Span]) -> Iterator[Span]:
    numbers = _NUMBERS.search(text) is not None  # without, most kinds cannot be there
    yield from keys(text)
    yield from emails(text)
    if numbers:
        yield from ibans(text)
        yield from cards(text)
        yield from ssns(text)
        yield from _national_ids(text, countries)
        yield from phones(text)
    if ip:
        yield from ip_addresses(text)
    yield from more
