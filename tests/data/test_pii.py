import itertools

import pytest

from matura.data import pii
from matura.data.pii import Span, find, mask
from matura.data.pii.identifiers import COUNTRIES

# Secrets are put together here, so that no scanner takes this file for a leak.
AMAZON = "AKIA" + "IOSFODNN7EXAMPLE"
GITHUB = "ghp_" + "a1B2c3D4e5F6" * 3
SK = "sk-" + "proj-a1B2c3D4e5F6g7H8i9J0"
SLACK = "xoxb-" + "123456789012-abcdefABCDEF"
JWT = "eyJ" + "hbGciOiJIUzI1NiJ9" + ".eyJ" + "zdWIiOiIxMjM0NTY3ODkwIn0" + ".dozjgNryP4J3jVmNHl0w5N"
BLOCK = "-----BEGIN RSA PRIVATE " + "KEY-----\nMIIEpAIBAAKCAQEA7\nabc=\n-----END RSA PRIVATE " + "KEY-----"


def kinds(text: str) -> list[str]:
    return [span.kind for span in find(text)]


@pytest.mark.parametrize(
    ("kind", "secret", "before", "after"),
    [
        ("EMAIL", "jane.doe+news@mail.example.com", "Write to ", "."),
        ("EMAIL", "jane@example.com", "<", ">"),
        ("EMAIL", "jane@example.com", "mailto:", "?subject=hello"),
        ("EMAIL", "jane@example.com", "Questions to ", ": she answers."),
        ("EMAIL", "jörg@müller.de", "an ", ", danke"),
        ("PHONE", "+1 202-555-0143", "ring ", " today"),
        ("PHONE", "+44 20 7946 0958", "(", ")"),
        ("PHONE", "+49 (0) 30 901820", "Berlin: ", "."),
        ("PHONE", "+4930901820", "x=", ",1"),
        ("PHONE", "0049 30 901820", "dial ", "\n"),
        ("PHONE", "(415) 555-2671", "office ", "."),
        ("PHONE", "415-555-2671", "office ", "."),
        ("PHONE", "030 901820", "Telefon: ", " (abends)"),
        ("PHONE", "415.555.2671", "Tel. ", ""),
        ("CARD", "4111 1111 1111 1111", "card ", ", 12/27"),
        ("CARD", "5555555555554444", "paid,", ",12/27"),
        ("CARD", "3782-822463-10005", "amex ", "."),
        ("IBAN", "DE89 3704 0044 0532 0130 00", "to ", " BIC"),
        ("IBAN", "GB82WEST12345698765432", "to ", " AND THEN"),
        ("KEY", AMAZON, "id = '", "'"),
        ("KEY", GITHUB, "https://", "@github.com/a/b"),
        ("KEY", SK, "key: ", ""),
        ("KEY", SLACK, "token=", ""),
        ("KEY", JWT, "Bearer ", "\n"),
        ("KEY", BLOCK, "\n", "\nafter"),
        ("KEY", "wJalrXUtnFEMI/K7MDENG/bPxRfiCY" + "EXAMPLEKEY", "aws_secret_access_key = ", "\n"),
        ("SSN", "219-09-9999", "SSN: ", "."),
        ("SSN", "219 09 9999", "his social security number is ", "."),
    ],
)
def test_what_is_personal_is_found_and_masked_exactly(
    kind: str, secret: str, before: str, after: str
) -> None:
    text = before + secret + after
    assert find(text) == [Span(len(before), len(before) + len(secret), kind)]
    assert mask(text, find(text)) == f"{before}<{kind}>{after}"


@pytest.mark.parametrize(
    "text",
    [
        "@pytest.fixture and @app.route('/x')",
        "git clone git@github.com:group/project.git",
        "ssh://git@host.example.com/project and https://user@host.example.com/",
        "icon@2x.png next to logo@3x.jpeg",
        "weights a@b.mean() and x@y.z",
        "npm install lodash@4.17.21",
        "someone@localhost",
        "Python 3.11.4, 2.7.18, numpy==1.26.4, v10.0.19045.3803",
        "2024-01-15, 15/01/2024, 2024-01-15 10:30:00, 20240115103000, 01.02.2024",
        "call us 2024-01-15 or fax 192.168.10.10",
        "ISBN 978-0-306-40615-7 and ISBN-10 0-306-40615-2",
        "4111 1111 1111 1112 and 1234567812345678",
        "0000000000000000 4444444444444444",
        "3.14159265358979323846 and 0.4111111111111111",
        "UUID 123e4567-e89b-12d3-a456-426614174000",
        "sha256 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08",
        "0x4111111111111111 and deadbeef4111111111111111",
        "port 8080, 1,234,567, 10 000 000, 1700000000000000",
        "219-09-9999 is a part number",
        "SSN 000-12-3456 and 666-12-3456 were never issued",
        "DE89 3704 0044 0532 0130 01",
        "ABCD1234EFGH5678IJKL",
        "sk-toggleable__content-arrow and sk-estimator-doc-link-wrapper",
        "AKIA is a prefix; ghp_short; xoxb",
        "y + 390625000*p*r**2 (+390625000*x) and 5 +497125000 * q",
        "RFC 2822, +1, -1 +2 -3 +100000, a+1234567890b",
        "12-345-6789 123-4567 555-1234",
        "f(x) = 123-456-7890",
        "lat 52.5200 lon 13.4050, 1.2.3.4.5",
        "-----BEGIN PUBLIC KEY-----\nMIIBIjANBgkq\n-----END PUBLIC KEY-----",
    ],
)
def test_what_only_looks_personal_is_left_alone(text: str) -> None:
    assert find(text) == []


def test_addresses_of_the_documentation_domains_count_too() -> None:
    assert kinds("user@example.com") == ["EMAIL"]


def test_several_kinds_in_order_and_never_overlapping() -> None:
    text = f"jane@example.com, +44 20 7946 0958, {GITHUB}, 4111111111111111, bob@example.org"
    assert kinds(text) == ["EMAIL", "PHONE", "KEY", "CARD", "EMAIL"]
    spans = find(text)
    assert all(a.end <= b.start for a, b in itertools.pairwise(spans))
    assert mask(text, spans) == "<EMAIL>, <PHONE>, <KEY>, <CARD>, <EMAIL>"
    assert pii.count(spans) == {"KEY": 1, "EMAIL": 2, "CARD": 1, "PHONE": 1}


def test_masked_text_holds_nothing_more_to_find() -> None:
    text = f"Mail jane@example.com, pay DE89370400440532013000 from 4111111111111111, {SK}, +1 202-555-0143."
    assert find(mask(text, find(text))) == []


def test_public_addresses_only_when_asked_for() -> None:
    text = "8.8.8.8, 192.168.0.1, 127.0.0.1, 999.1.1.1 and version 1.2.3.4.5"
    assert find(text) == []
    assert [text[s.start : s.end] for s in find(text, ip=True)] == ["8.8.8.8"]


def test_an_unfinished_private_key_is_masked_as_far_as_it_goes() -> None:
    text = BLOCK.split("abc=")[0].replace("MIIEpAIBAAKCAQEA7", "M" * 64) + "\nprose goes on here"
    assert mask(text, find(text)) == "<KEY>\n\nprose goes on here"


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text",
    [
        "a" * 300_000,
        "a." * 150_000,
        "a@" * 150_000,
        "1 " * 150_000,
        "1-" * 150_000,
        "+" * 300_000,
        "A1" * 150_000,
        "-----BEGIN PRIVATE KEY-----" * 10_000,
        "eyJ" + "a" * 300_000,
        "a@a." * 70_000,
        "+1 2" * 70_000,
        "ab:" * 100_000,
        "password=" * 30_000,
        "tel 1" * 60_000,
        "SSN BSN 123 " * 20_000,
    ],
    ids=lambda text: text[:6],
)
def test_hostile_text_takes_no_time(text: str) -> None:
    assert isinstance(find(text, ip=True, national_ids=COUNTRIES), list)
