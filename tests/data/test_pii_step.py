import pytest

from matura.core.errors import ConfigError
from matura.core.records import Document
from matura.data import pii, pii_step
from matura.data.steps import Outcome

TEXT = "Write to jane@example.com or JANE@example.com, phone 030 901820, pay 4111 1111 1111 1111."


def apply(*texts: str, **settings: object) -> Outcome:
    return pii_step.make(**settings)([Document(f"d{i}", text, "s") for i, text in enumerate(texts)])


def test_masking_counts_by_kind() -> None:
    outcome = apply(TEXT, "nothing here")
    assert [one.text for one in outcome.kept] == [
        "Write to <EMAIL> or <EMAIL>, phone <PHONE>, pay <CARD>.",
        "nothing here",
    ]
    assert outcome.counts == {"EMAIL": 2, "PHONE": 1, "CARD": 1, "documents": 1}


def test_report_changes_nothing() -> None:
    outcome = apply(TEXT, action="report")
    assert outcome.kept[0].text == TEXT
    assert outcome.counts["EMAIL"] == 2


def test_a_dropped_document_is_shown_masked() -> None:
    outcome = apply(TEXT, "nothing here", action="drop")
    assert [one.id for one in outcome.kept] == ["d1"]
    (one,) = outcome.dropped
    assert (one.step, one.reason, one.detail) == ("pii", "personal data", "2 EMAIL, 1 CARD, 1 PHONE")
    assert "jane" not in one.sample.lower()


def test_titles_and_addresses_of_documents_are_cleaned_too() -> None:
    document = Document("d", "plain", "s", {"title": "Mail of jane@example.com", "license": "MIT"})
    (one,) = pii_step.make()([document]).kept
    assert one.meta == {"title": "Mail of <EMAIL>", "license": "MIT"}


def test_pseudonyms_are_the_same_in_all_documents_and_others_with_another_seed() -> None:
    first, second = apply("a jane@corp.io", "b Jane@Corp.io", action="pseudonymise", seed=1).kept
    assert first.text[2:] == second.text[2:]
    assert first.text.endswith("@example.com")
    assert apply("a jane@corp.io", action="pseudonymise", seed=2).kept[0].text != first.text
    assert apply("a john@corp.io", action="pseudonymise", seed=1).kept[0].text != first.text


def find_jane(texts: list[str]) -> list[list[tuple[int, int, str]]]:
    return [
        [(text.index("Jane Doe"), text.index("Jane Doe") + 8, "NAME")] if "Jane Doe" in text else []
        for text in texts
    ]


def find_beyond(texts: list[str]) -> list[list[tuple[int, int, str]]]:
    return [[(0, 999, "NAME")] for _ in texts]


def find_none(texts: list[str]) -> list[list[tuple[int, int, str]]]:
    return []


def test_names_by_the_users_own_finder() -> None:
    names = f"{__name__}:find_jane"
    outcome = apply("Jane Doe <jane@example.com>", "nobody", names=names)
    assert outcome.kept[0].text == "<NAME> <<EMAIL>>"
    assert outcome.counts == {"NAME": 1, "EMAIL": 1, "documents": 1}
    assert "Jane" not in apply("by Jane Doe", names=names, action="pseudonymise").kept[0].text


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"names": "nowhere:find"}, "leads to no function"),
        ({"names": f"{__name__}:find_beyond"}, "a span 0-999 of kind 'NAME' for a text of 4 characters"),
        ({"names": f"{__name__}:find_none"}, "0 lists of spans for 1 texts"),
        ({"national_ids": ["XX"]}, "'XX' is not known; known are AT"),
    ],
)
def test_what_is_not_offered(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        apply("text", **settings)


@pytest.mark.parametrize(
    ("kind", "value"),
    [
        ("PHONE", "+1 415-555-2671"),
        ("PHONE", "(415) 555-2671"),
        ("CARD", "4111 1111 1111 1111"),
        ("CARD", "5555555555554444"),
        ("IBAN", "DE89 3704 0044 0532 0130 00"),
        ("IBAN", "GB82WEST12345698765432"),
        ("SSN", "219-09-9999"),
        ("NATIONAL_ID", "AB 12 34 56 C"),
        ("KEY", "-----BEGIN PRIVATE " + "KEY-----\nMIIEpAIB+/==\n-----END PRIVATE " + "KEY-----"),
    ],
)
def test_pseudonyms_have_the_form_of_the_value(kind: str, value: str) -> None:
    made = pii.pseudonymise(value, [pii.Span(0, len(value), kind)], seed=0)
    assert made != value
    assert [one if not one.isalnum() else one.isdigit() for one in made] == [
        one if not one.isalnum() else one.isdigit() for one in value
    ]


def test_pseudonyms_are_nobodys() -> None:
    from stdnum import iban, luhn

    def made(value: str, kind: str) -> str:
        return pii.pseudonymise(value, [pii.Span(0, len(value), kind)], seed=0)

    card = made("4111 1111 1111 1111", "CARD").replace(" ", "")
    assert card.startswith("400000")
    assert luhn.is_valid(card)
    for account in ("DE89 3704 0044 0532 0130 00", "GB82WEST12345698765432", "FR1420041010050500013M02606"):
        assert iban.is_valid(made(account, "IBAN"), check_country=False)
    assert made("GB82WEST12345698765432", "IBAN")[4:8] == "TEST"
    assert "555-01" in made("415-555-2671", "PHONE")
    assert made("+49 30 901820", "PHONE").startswith("+1-")
    assert made("219-09-9999", "SSN").startswith("9")
    assert made("8.8.8.8", "IP").startswith(("192.0.2.", "198.51.100.", "203.0.113."))
    assert made("2a00:1450:4001::8888", "IP").startswith("2001:db8::")
    assert made("+1 (415) 555-2671", "PHONE")[-7:] == made("415.555.2671", "PHONE").replace(".", "-")[-7:]
