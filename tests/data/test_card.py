"""The data card."""

from typing import Any

import pytest
import yaml

from matura.data import card

SIZE = {"documents": 600, "bytes": 4_000_000, "tokens": 1_000_000}


def funnel(**more: Any) -> dict[str, Any]:
    step = {"name": "length", "documents_in": 1300, "documents_out": 1200, "dropped": {"too short": 100}}
    return {
        "steps": [step],
        "sources": {"web": SIZE},
        "languages": {"en": SIZE, "und": SIZE},
        "licenses": {"CC-BY-4.0": SIZE},
        "pii": {"EMAIL": 3, "documents": 2},
        "train": SIZE,
        "heldout": SIZE,
        "settings": {"path": "/srv/private", "pii": {"action": "mask"}},
        **more,
    }


def front(text: str) -> dict[str, Any]:
    head: dict[str, Any] = yaml.safe_load(text.split("---\n")[1])
    return head


def test_the_front_matter_is_what_the_hub_reads() -> None:
    head = front(card.render(funnel()))
    assert head["license"] == ["cc-by-4.0"]
    assert head["language"] == ["en"]
    assert head["size_categories"] == ["1K<n<10K"]
    assert head["task_categories"] == ["text-generation"]


def test_the_sections_of_a_datasheet_are_there_with_the_numbers() -> None:
    text = card.render(funnel())
    names = (
        "Motivation",
        "Composition",
        "Collection",
        "Preprocessing",
        "Uses",
        "Distribution",
        "Maintenance",
    )
    places = [text.index(f"\n## {name}\n") for name in names]
    assert places == sorted(places)
    assert "| length | 1,300 | 1,200 | too short (100) |" in text
    assert "3 EMAIL. They were replaced by typed placeholders." in text


def test_no_local_path_is_told() -> None:
    assert "/srv" not in card.render(funnel())


def test_a_missing_licence_is_asked_for() -> None:
    text = card.render(funnel(licenses={}))
    assert front(text)["license"] == ["unknown"]
    assert "no source named a licence" in text
    assert "no source named a licence" not in card.render(funnel())


def test_documents_without_a_licence_are_told() -> None:
    text = card.render(funnel(licenses={"MIT": SIZE, "": SIZE}))
    assert front(text)["license"] == ["mit", "unknown"]
    assert "| not named | 600 |" in text


@pytest.mark.parametrize(
    ("spdx", "hub"),
    [
        ("Apache-2.0", "apache-2.0"),
        ("GPL-3.0-or-later", "gpl-3.0"),
        ("LGPL-2.1-only", "lgpl-2.1"),
        ("GFDL-1.3-only", "gfdl"),
        ("PSF-2.0", "other"),
    ],
)
def test_licences_have_the_names_of_the_hub(spdx: str, hub: str) -> None:
    assert front(card.render(funnel(licenses={spdx: SIZE})))["license"] == [hub]


def test_the_hub_is_told_which_files_are_data() -> None:
    (default,) = front(card.render(funnel()))["configs"]
    assert {one["split"]: one["path"] for one in default["data_files"]} == {
        "train": "train.parquet",
        "heldout": "heldout.parquet",
    }


@pytest.mark.parametrize("name", ["a\n---\nlicense: mit", "| x | [y](http://z) <b>", "'\": {"])
def test_a_name_stays_in_its_cell(name: str) -> None:
    text = card.render(funnel(sources={name: SIZE}, licenses={name: SIZE}, languages={name: SIZE}))
    head = front(text)
    assert (head["license"], "language" in head) == (["other"], False)
    assert text.count("\n---\n") == 1
    assert "](" not in text.replace("\\]", "")
    assert "<b>" not in text.replace("\\<", "")


@pytest.mark.parametrize(("count", "name"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**9, "n>1B")])
def test_sizes(count: int, name: str) -> None:
    assert card.size_category(count) == name
