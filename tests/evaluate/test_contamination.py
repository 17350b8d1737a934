"""Items that were planted in the text are found, others are not."""

from matura.core.records import Document
from matura.evaluate import contamination, spec
from matura.evaluate.sitting import Section
from matura.evaluate.tasks import Item

LONG = "which of these many small animals lives longest in the cold water of the northern sea?"


def section(name: str, *questions: str, role: str = "task") -> Section:
    items = [
        Item(f"{name}-{n}", one, ("a shark", "a fly"), 0, name, question=one)
        for n, one in enumerate(questions)
    ]
    return Section(name, spec.builtin()["piqa"], items, role)  # type: ignore[arg-type]


def documents(*texts: str) -> list[Document]:
    return [Document(f"d{n}", text, "x.md") for n, text in enumerate(texts)]


def test_an_item_in_the_text_is_flagged_whatever_its_case_and_punctuation() -> None:
    sections = [
        section("one", LONG, "something that is nowhere in the text, in no document at all, not once here")
    ]
    found = contamination.search(
        sections, documents("nothing", f"They asked: {LONG.upper()} A SHARK, they said.")
    )
    assert found is not None
    assert (found.documents, found.whole, found.found) == (2, True, {"one": ["one-0"]})
    assert contamination.notes(found, sections) == [
        "one: at least 1 of 2 items stand in the text that was trained on (13 words in a row)."
    ]


def test_a_clean_text_and_texts_that_are_asked_themselves_flag_nothing() -> None:
    found = contamination.search([section("one", LONG)], documents("A clean text. " * 50))
    assert found is not None
    assert found.found == {}
    assert contamination.search([section("domain", LONG, role="domain")], documents(LONG)) is None
    assert contamination.search([section("one", "short?")], documents("short?")) is None
    assert contamination.search([section("one", LONG)], []) is None


def test_a_large_corpus_is_searched_as_far_as_the_limit(monkeypatch) -> None:
    monkeypatch.setattr(contamination, "MOST_CHARACTERS", 10)
    monkeypatch.setattr(contamination, "TOGETHER", 1)
    found = contamination.search(
        [section("one", LONG)], documents("a text of enough letters", LONG + " a shark")
    )
    assert found is not None
    assert (found.documents, found.whole, found.found) == (1, False, {})
