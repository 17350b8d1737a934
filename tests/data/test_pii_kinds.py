"""Kinds that are looked for on demand, and secrets without a known beginning."""

import pytest

from matura.core.errors import ConfigError
from matura.data.pii import find
from matura.data.pii.identifiers import COUNTRIES

# Made up, with right check digits.
NUMBERS = {
    "BR": "111.444.777-35",
    "CA": "SIN 130 692 544",
    "CH": "756.1234.5678.97",
    "ES": "12345678Z",
    "FI": "131052-308T",
    "FR": "2 55 08 14 168 025 38",
    "GB": "AB 12 34 56 C",
    "IT": "RCCMNL83S18D969H",
    "NL": "BSN 111222333",
    "PL": "44051401359",
    "SE": "811228-9874",
    "US": "219-09-8888",
}


@pytest.mark.parametrize("country", NUMBERS)
def test_personal_numbers_of_a_country_when_it_is_listed(country: str) -> None:
    value = NUMBERS[country].removeprefix("SIN ").removeprefix("BSN ")
    text = f"as given: {NUMBERS[country]}, thanks"
    found = find(text, national_ids=[country])
    assert [(text[one.start : one.end], one.kind) for one in found] == [(value, "NATIONAL_ID")]
    assert find(text) == []
    last = value[-1]
    wrong = text.replace(value, value[:-1] + ("1" if last != "1" else "2" if last.isdigit() else "A"))
    if country not in ("GB", "US"):  # without check digits
        assert find(wrong, national_ids=[country]) == []


def test_a_number_with_one_check_digit_needs_its_word() -> None:
    assert find("item 111222333 of many", national_ids=["NL"]) == []
    assert find("130 692 544 pieces", national_ids=["CA"]) == []


@pytest.mark.parametrize("country", COUNTRIES)
def test_every_country_can_be_asked_for(country: str) -> None:
    text = "no number 123456789, 12345678901, 123456-7890 and 1234567890123 of anybody; NHS TIN BSN NIF SIN"
    assert isinstance(find(text, national_ids=[country]), list)


def test_unknown_countries_are_an_error() -> None:
    with pytest.raises(ConfigError, match="'de' is not known"):
        find("1234", national_ids=["de"])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("from 2a00:1450:4001:082a:0000:0000:0000:200e.", "2a00:1450:4001:082a:0000:0000:0000:200e"),
        ("[2a00:1450:4001::200e]:443", "2a00:1450:4001::200e"),
        ("at 8.8.4.4, said", "8.8.4.4"),
    ],
)
def test_public_addresses(text: str, address: str) -> None:
    assert [text[one.start : one.end] for one in find(text, ip=True)] == [address]


@pytest.mark.parametrize(
    "text",
    [
        "fe80::1 and fd00::1234 and ::1 and 2001:db8::1",
        "00:11:22:33:44:55:66:77 and 00:1a:2b:3c:4d:5e",
        "dead::beef, std::abc::def, Face::Add1",
        "12:34:56 and 2024-01-01T10:20:30",
        "version 4.4.63.26, upgraded to 8.4.371.19, lib==1.21.0.1, 10.0.0.1",
    ],
)
def test_what_is_no_public_address(text: str) -> None:
    assert find(text, ip=True) == []


SECRET = "q7Rt" + "2xLp9VbZ"


@pytest.mark.parametrize(
    "text",
    [
        "password={}",
        'api_key: "{}"',
        "DB_PASSWORD='{}'",
        '"client_secret": "{}",',
        "token = {}\n",
        "ACCESS_KEY:={};",
    ],
)
def test_values_of_chance_that_are_assigned(text: str) -> None:
    (one,) = find(text.format(SECRET))
    assert (one.start, one.end, one.kind) == (text.index("{"), text.index("{") + len(SECRET), "KEY")


@pytest.mark.parametrize(
    "text",
    [
        "password = get_password(user1)",
        "password=${DB_PASSWORD_2}",
        "token: next_token2",
        "key=your-api-key-123",
        "api_key = 'xxxxxxxx1234'",
        "token == a1B2c3D4e5F6",
        "password: correct-horse",
        "secret=projects/my-project/secrets/versions/2",
        "the key: 2024-01-15T10:20:30",
        "password: <EMAIL>",
    ],
)
def test_assignments_that_hold_no_secret(text: str) -> None:
    assert find(text) == []


@pytest.mark.parametrize(
    ("before", "number"),
    [
        ("Tel. (", "030 901820"),
        ("Mobile: ", "0171 2345678"),
        ("call me at ", "206.269.0743x9150"),
        ("Téléphone : ", "06 12 34 56 78"),
        ("", "+1-780-563-6083x7783"),
        ("", "+46 (0)285 317 19"),
    ],
)
def test_phones_in_many_forms(before: str, number: str) -> None:
    (one,) = find(f"{before}{number} today")
    assert (one.start, one.end, one.kind) == (len(before), len(before) + len(number), "PHONE")
