"""Personal data made by Faker within sentences, and decoys that only look like it."""

from __future__ import annotations

import random
import string
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

LOCALES = [
    "en_US",
    "en_GB",
    "en_CA",
    "de_DE",
    "fr_FR",
    "es_ES",
    "it_IT",
    "nl_NL",
    "pl_PL",
    "sv_SE",
    "pt_BR",
    "pt_PT",
    "fi_FI",
    "no_NO",
    "de_CH",
    "en_IN",
]
COUNTRIES = ("US", "GB", "CA", "FR", "ES", "IT", "NL", "PL", "SE", "BR", "FI", "NO", "CH")
_CALLED = {
    "de_DE": "Telefon: {}, abends",
    "de_CH": "Tel. {} (Büro)",
    "fr_FR": "Mon téléphone est le {}.",
    "es_ES": "Mi teléfono: {}",
    "it_IT": "Il mio telefono è {} da oggi",
    "nl_NL": "Telefoon {}.",
    "pl_PL": "telefon {}, prosimy dzwonić",
    "sv_SE": "Telefon {} dygnet runt",
    "pt_BR": "Meu telefone: {}",
    "pt_PT": "Telemóvel: {}.",
    "fi_FI": "Puhelin: {}",
    "no_NO": "Telefon {}",
}
_NUMBERED = {  # the word that stands beside a number whose single check digit is no proof
    "en_CA": "My SIN is {} as before.",
    "nl_NL": "Mijn BSN is {}.",
    "en_US": "Her SSN is {}, she said.",
}
_SENTENCES = {
    "EMAIL": ("Write to {} please.", "From: <{}>", "contact={};", "Mail {}, or come by."),
    "CARD": ("I paid with {} yesterday.", "card: {}", "Charge it to {}."),
    "IBAN": ("Send it to {} today.", "IBAN: {}", "account {}, please"),
    "IP": ("The request came from {} at night.", "host {} refused", "[{}] connected"),
    "KEY": ("password={}\n", 'api_key: "{}"', "token = '{}'", "DB_PASSWORD: {}\n"),
    "TOKEN": ("Use {} for now.", "Authorization: Bearer {}\n", "key = {}"),
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A sentence; the value is text[start:end], of this kind."""

    text: str
    start: int
    end: int
    kind: str
    group: str


def samples(count: int, seed: int) -> Iterator[Sample]:
    """`count` values of each type and locale."""
    from faker import Faker

    Faker.seed(seed)
    rng = random.Random(seed)
    for locale in LOCALES:
        fake = Faker(locale)
        for name, kind, make, sentences in _makers(fake, locale, rng):
            for _ in range(count):
                value, sentence = make(), rng.choice(sentences)
                if value is None:
                    continue
                start = sentence.index("{}")
                yield Sample(sentence.replace("{}", value), start, start + len(value), kind, f"{name}")


def _makers(
    fake: Any, locale: str, rng: random.Random
) -> Iterator[tuple[str, str, Callable[[], str | None], tuple[str, ...]]]:
    yield "e-mail", "EMAIL", fake.email, _SENTENCES["EMAIL"]
    yield "card", "CARD", fake.credit_card_number, _SENTENCES["CARD"]
    yield "IBAN", "IBAN", lambda: _of_its_length(fake.iban()), _SENTENCES["IBAN"]
    yield "IPv4", "IP", fake.ipv4_public, _SENTENCES["IP"]
    yield "IPv6", "IP", lambda: _public(fake.ipv6()), _SENTENCES["IP"]
    phone = _CALLED.get(locale, "Phone {} after six.")
    yield "phone", "PHONE", fake.phone_number, (phone, "call me at {}")
    yield (
        "password",
        "KEY",
        lambda: fake.password(length=rng.randint(12, 20), special_chars=False),
        _SENTENCES["KEY"],
    )
    yield "API key", "KEY", lambda: _token(rng), _SENTENCES["TOKEN"]
    if locale == "es_ES":
        yield "national id", "NATIONAL_ID", fake.nif, ("Mi DNI es {}.",)
    elif locale == "en_US":
        yield "SSN", "SSN", fake.ssn, (_NUMBERED[locale],)
    elif locale in (
        "en_GB",
        "en_CA",
        "fr_FR",
        "it_IT",
        "nl_NL",
        "pl_PL",
        "sv_SE",
        "pt_BR",
        "fi_FI",
        "no_NO",
        "de_CH",
    ):
        yield "national id", "NATIONAL_ID", fake.ssn, (_NUMBERED.get(locale, "number {}, as given"),)


def _of_its_length(value: str) -> str | None:
    """Faker's British account numbers lack a digit: no bank has one."""
    return value if not value.startswith("GB") or len(value) == 22 else None


def _public(address: str) -> str | None:
    """Faker takes addresses from the whole space; private ones are not looked for."""
    import ipaddress

    return address if ipaddress.ip_address(address).is_global else None


def _token(rng: random.Random) -> str:
    def chance(count: int, letters: str = string.ascii_letters + string.digits) -> str:
        return "".join(rng.choices(letters, k=count))

    return rng.choice(
        [
            "AKIA" + chance(16, string.ascii_uppercase + "234567"),
            "ghp_" + chance(36),
            "xoxb-" + chance(12, string.digits) + "-" + chance(24),
            "sk_live_" + chance(24),
            "sk-proj-" + chance(48),
            "AIza" + chance(35),
            f"eyJ{chance(20)}.eyJ{chance(40)}.{chance(43)}",
        ]
    )


def decoys(count: int, seed: int) -> Iterator[tuple[str, str]]:
    """(type, sentence) without personal data."""
    from faker import Faker

    Faker.seed(seed + 1)
    fake, rng = Faker("en_US"), random.Random(seed + 1)
    makers: dict[str, Callable[[], str]] = {
        "version": lambda: f"Upgrade to version {_numbers(rng, 2, 4)} of the package.",
        "pinned": lambda: f"package=={_numbers(rng, 2, 3)}",
        "hash": lambda: f"sha256: {fake.sha256()} and md5 {fake.md5()}",
        "commit": lambda: f"Fixed in commit {fake.sha1()[: rng.choice([7, 10, 40])]}.",
        "date": lambda: (
            f"It happened on {fake.date(rng.choice(['%Y-%m-%d', '%d/%m/%Y', '%d.%m.%Y', '%Y%m%d']))}."
        ),
        "time": lambda: f"at {fake.iso8601()} (epoch {fake.unix_time():.0f})",
        "ISBN": lambda: f"ISBN {fake.isbn13()} or {fake.isbn10()}",
        "coordinates": lambda: f"at {fake.latitude()}, {fake.longitude()}",
        "price": lambda: f"It costs {fake.pricetag()} or {rng.randint(1, 10**9):,} yen.",
        "id": lambda: f"order {rng.randint(10**6, 10**11)}, item {fake.ean13()}, uuid {fake.uuid4()}",
        "URL": lambda: f"see {fake.uri()}?page={rng.randint(1, 10**6)}#p{rng.randint(1, 999)}",
        "hardware": lambda: f"interface {fake.mac_address()} on port {fake.port_number()}",
        "code": lambda: (
            f"x[{rng.randint(0, 10**9)}] += 0x{rng.getrandbits(48):x}; password = get_{fake.word()}()"
        ),
        "scope": lambda: (
            f"std::{fake.word()}::{fake.word()} at 12:{rng.randint(10, 59)}:{rng.randint(10, 59)}"
        ),
        "decimal": lambda: f"value {rng.random():.16f} or {rng.uniform(-1e9, 1e9):.6f}",
        "handle": lambda: f"@{fake.user_name()} wrote git@host.org:{fake.word()}/{fake.word()}.git",
    }
    for name, make in makers.items():
        for _ in range(count):
            yield name, make()


def _numbers(rng: random.Random, least: int, most: int) -> str:
    return ".".join(str(rng.randint(0, 30)) for _ in range(rng.randint(least, most)))
