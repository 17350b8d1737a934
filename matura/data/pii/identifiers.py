"""Personal numbers of countries: a form proposes, the check digits of python-stdnum decide."""

from __future__ import annotations

import importlib
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

from matura.core.errors import ConfigError
from matura.data.pii.spans import NATIONAL_ID, Span


@dataclass(frozen=True, slots=True)
class Identifier:
    """`check` is a module of stdnum, empty where a number has no check digit. One check digit alone is right for every
    tenth number: then one of the `words` must be near."""

    check: str
    form: str
    words: str = ""


_NINE = r"[0-9]{9}"
_ELEVEN = r"[0-9]{11}"
_BORN = r"[0-9]{2}[0-5][0-9][0-3][0-9]"  # year, month, day
_IDENTIFIERS: dict[str, tuple[Identifier, ...]] = {
    "AT": (
        Identifier("at.vnr", r"[1-9][0-9]{3} ?[0-3][0-9][01][0-9]{3}", r"sozialversicherung|\bsv-?n|\bvsnr"),
    ),
    "BE": (Identifier("be.nn", r"[0-9]{2}\.?[0-9]{2}\.?[0-9]{2}[- ]?[0-9]{3}[. ]?[0-9]{2}"),),
    "BG": (Identifier("bg.egn", _BORN + r"[0-9]{4}", r"\begn\b|егн"),),
    "BR": (Identifier("br.cpf", r"[0-9]{3}\.?[0-9]{3}\.?[0-9]{3}-?[0-9]{2}"),),
    "CA": (
        Identifier("ca.sin", r"[1-79][0-9]{2}([- ]?)[0-9]{3}\1[0-9]{3}", r"\bsin\b|social insurance|\bnas\b"),
    ),
    "CH": (Identifier("ch.ssn", r"756\.?[0-9]{4}\.?[0-9]{4}\.?[0-9]{2}"),),
    "CN": (Identifier("cn.ric", r"[1-9][0-9]{16}[0-9Xx]"),),
    "CZ": (Identifier("cz.rc", _BORN + r"/?[0-9]{3,4}", r"rodn|\brč\b|\br\.č"),),
    "DE": (Identifier("de.idnr", r"[1-9][0-9](?: ?[0-9]{3}){3}", r"steuer|\bid-?nr|\btin\b"),),
    "DK": (Identifier("dk.cpr", r"[0-3][0-9][01][0-9]{3}-?[0-9]{4}", r"\bcpr\b|personnummer"),),
    "EE": (Identifier("ee.ik", r"[1-8]" + _BORN + r"[0-9]{4}"),),
    "ES": (
        Identifier("es.dni", r"[0-9]{2}\.?[0-9]{3}\.?[0-9]{3}-?[A-Z]"),
        Identifier("es.nie", r"[XYZ]-?[0-9]{7}-?[A-Z]"),
    ),
    "FI": (Identifier("fi.hetu", r"[0-3][0-9][01][0-9]{3}[-+A-FU-Y][0-9]{3}[0-9A-Y]"),),
    "FR": (Identifier("fr.nir", r"[1-478] ?[0-9]{2} ?[0-9]{2} ?[0-9][0-9AB] ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}"),),
    "GB": (
        Identifier(
            "", r"(?:ZZ|[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z]) ?[0-9]{2} ?[0-9]{2} ?[0-9]{2} ?[A-DFMPT]"
        ),
        Identifier("gb.nhs", r"[0-9]{3}([- ]?)[0-9]{3}\1[0-9]{4}", r"\bnhs\b"),
    ),
    "GR": (Identifier("gr.amka", r"[0-3][0-9][01][0-9]{8}", r"\bamka\b|αμκα"),),
    "HR": (Identifier("hr.oib", _ELEVEN, r"\boib\b"),),
    "IE": (Identifier("ie.pps", r"[0-9]{7}[A-W][AHTW]?"),),
    "IN": (
        Identifier("in_.aadhaar", r"[2-9][0-9]{3}([- ]?)[0-9]{4}\1[0-9]{4}", r"aadha+r|uidai|\buid\b"),
        Identifier("in_.pan", r"[A-Z]{3}[ABCFGHJLPT][A-Z][0-9]{4}[A-Z]", r"\bpan\b|income tax"),
    ),
    "IT": (
        Identifier("it.codicefiscale", r"[A-Z]{6}[0-9L-V]{2}[A-EHLMPRST][0-9L-V]{2}[A-Z][0-9L-V]{3}[A-Z]"),
    ),
    "KR": (Identifier("kr.rrn", _BORN + r"-?[1-8][0-9]{6}"),),
    "LT": (Identifier("lt.asmens", r"[1-6]" + _BORN + r"[0-9]{4}"),),
    "MX": (Identifier("mx.curp", r"[A-Z]{4}" + _BORN + r"[HM][A-Z]{5}[0-9A-Z][0-9]"),),
    "NL": (Identifier("nl.bsn", _NINE, r"\bbsn\b|burgerservice|sofi"),),
    "NO": (Identifier("no.fodselsnummer", r"[0-7][0-9][0-9]{4} ?[0-9]{5}"),),
    "PL": (Identifier("pl.pesel", _BORN + r"[0-9]{5}"),),
    "PT": (
        Identifier("pt.nif", r"[1-35689][0-9]{8}", r"\bnif\b|contribuinte"),
        Identifier("pt.cc", r"[0-9]{8} ?[0-9] ?[A-Z0-9]{2}[0-9]", r"cart[aã]o|cidad[aã]o|\bcc\b"),
    ),
    "RO": (Identifier("ro.cnp", r"[1-9]" + _BORN + r"[0-9]{6}"),),
    "SE": (Identifier("se.personnummer", r"(?:19|20)?" + _BORN + r"[-+]?[0-9]{4}"),),
    "SI": (Identifier("si.emso", r"[0-3][0-9][01][0-9][09][0-9]{8}"),),
    "SK": (Identifier("sk.rc", _BORN + r"/?[0-9]{3,4}", r"rodn|\brč\b"),),
    "TR": (Identifier("tr.tckimlik", r"[1-9][0-9]{10}"),),
    "US": (
        Identifier("us.ssn", r"(?!000|666|9)[0-9]{3}-(?!00)[0-9]{2}-(?!0000)[0-9]{4}"),
        Identifier("us.itin", r"9[0-9]{2}-[5-9][0-9]-[0-9]{4}"),
    ),
    "ZA": (Identifier("za.idnr", _BORN + r"[0-9]{4}[01][89][0-9]"),),
}
COUNTRIES = tuple(_IDENTIFIERS)
"""Countries (ISO 3166) whose personal numbers are known."""

_CALLED = re.compile(r"\+[0-9]{1,3}[ -]?$")  # the rest is a phone number
_BEFORE, _AFTER = 60, 30  # characters in which a word must be


def check(countries: Sequence[str]) -> None:
    """Raises ConfigError for a country that is not in COUNTRIES."""
    for country in countries:
        if country not in _IDENTIFIERS:
            raise ConfigError(
                f"pii.national_ids: {country!r} is not known; known are {', '.join(COUNTRIES)} (ISO 3166, in capitals)"
            )


def national_ids(text: str, countries: Sequence[str]) -> Iterator[Span]:
    """Personal numbers of the countries, as NATIONAL_ID. Raises as `check`."""
    check(countries)
    for country in countries:
        for one in _IDENTIFIERS[country]:
            form, words = _compiled(one)
            if words and not words.search(text):
                continue
            for match in form.finditer(text):
                if _CALLED.search(text[max(0, match.start() - 6) : match.start()]):
                    continue
                near = text[max(0, match.start() - _BEFORE) : match.end() + _AFTER]
                if (not words or words.search(near)) and _valid(one.check, match[0]):
                    yield Span(*match.span(), NATIONAL_ID)


@cache
def _compiled(one: Identifier) -> tuple[re.Pattern[str], re.Pattern[str] | None]:
    words = re.compile(one.words, re.IGNORECASE) if one.words else None
    return re.compile(rf"(?<![\w.+/-]){one.form}(?![\w-]|\.[0-9])"), words


def _valid(module: str, number: str) -> bool:
    if not module:
        return True
    return bool(importlib.import_module(f"stdnum.{module}").is_valid(number))
