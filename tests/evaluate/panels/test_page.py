import pytest

from matura.evaluate.panels import page

FIGURE = {
    "name": "preference",
    "part": "",
    "unit": "share",
    "value": 0.6,
    "low": 0.55,
    "high": 0.65,
    "items": 1200,
    "neutral": 0.5,
    "about": "",
}
PANEL = {
    "name": "crows_pairs",
    "title": "Stereotypes <b>",
    "measures": "How often.",
    "silent": "Fairness.",
    "data": "rows",
    "licence": "MIT",
    "notes": ["One was left out."],
}


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (0.125, "share", "12.5%"),
        (0.125, "difference", "+12.5%"),
        (-0.5, "lean", "-0.50"),
        (7.994, "bits", "7.99"),
        (None, "share", "–"),
    ],
)
def test_numbers_are_shown_in_their_unit(value, unit, shown):
    assert page.number(value, unit) == shown


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({}, "above 50.0%"),
        ({"low": 0.3, "high": 0.45}, "below 50.0%"),
        ({"low": 0.45}, "not told from 50.0%"),
        ({"neutral": None}, ""),
        ({"items": 4}, "only 4 items: an example, no finding"),
        ({"value": None, "low": None, "high": None, "items": 0}, "nothing to count"),
    ],
)
def test_a_reading_says_no_more_than_the_interval(changes, words):
    assert page.reading({**FIGURE, **changes}) == words


def test_the_page_escapes_what_comes_from_outside_and_says_what_is_not_shown(tmp_path):
    page.write(tmp_path, [{**PANEL, "figures": [FIGURE]}], "mine", "", ["a note"])
    text = (tmp_path / page.FILE).read_text()
    assert "Stereotypes &lt;b&gt;" in text
    for words in (
        "What it does not show.</strong> Fairness.",
        "One was left out.",
        "a note",
        "55.0% … 65.0%",
        "1,200",
    ):
        assert words in text
    assert "difference" not in text


def test_two_models_are_shown_beside_each_other(tmp_path):
    both = {"parent": 0.5, "difference": 0.1, "difference_low": 0.02, "difference_high": 0.18}
    page.write(tmp_path, [{**PANEL, "figures": [{**FIGURE, **both}]}], "mine", "before", [])
    text = (tmp_path / page.FILE).read_text()
    for words in ("beside before on the same items", "50.0%", "+10.0%", "+2.0% … +18.0%"):
        assert words in text


def test_a_panel_in_a_few_words():
    part = {**FIGURE, "part": "gender"}
    assert page.told({**PANEL, "figures": [FIGURE, part]}) == (
        "Stereotypes <b>: preference 60.0% (55.0% … 65.0%, 1,200 items). What this does not show: Fairness."
    )
    assert "preference, gender 60.0%" in page.told({**PANEL, "figures": [part]})
