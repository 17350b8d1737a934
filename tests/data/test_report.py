"""The report of a corpus: complete, safe to open, and right about thresholds."""

import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from matura.data import canary, report, tally, trade_off
from matura.data.steps import Outcome
from matura.data.thresholds import Threshold, kept, quantiles, thresholds

NASTY = "<script>alert('x')</script> \u202etxt.exe\x1b[31m $\\frac{1}{2}$ {{ 7 * 7 }} http://example.org/"


def funnel(**more: Any) -> dict[str, Any]:
    step = tally.empty("length")
    values = [float(100 + 10 * n) for n in range(40)]
    tally.note(step, [100] * 40, Outcome(measures={"length.characters": values}), 0.5)
    (step,) = tally.merge([[step]])
    step |= {"documents_out": 30, "bytes_out": 3500, "dropped": {NASTY: 10}}
    size = {"documents": 20, "characters": 3000, "bytes": 3000, "tokens": 750}
    sample = {"id": "a", "source": NASTY, "detail": NASTY, "sample": NASTY * 100}
    return {
        "line": "one line",
        "steps": [step],
        "samples": {"length": {NASTY: [sample]}},
        "sources": {NASTY: {"documents": 30, "bytes": 3500, "tokens": 875}},
        "languages": {"en": {"documents": 30, "bytes": 3500, "tokens": 875}},
        "licenses": {},
        "clusters": {"2": 5, "10": 1},
        "pii": {"EMAIL": 4, "documents": 2},
        "train": size,
        "heldout": {**size, "documents": 10, "files": []},
        "settings": {"min_characters": 200, "pii": {"action": "mask"}},
        **more,
    }


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_all_three_files_are_written_and_the_numbers_agree(tmp_path: Path) -> None:
    report.write(tmp_path, funnel())
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["thresholds"] == [{"measure": "length.characters", "keeps": "at least", "value": 200.0}]
    assert told["steps"] == funnel()["steps"]
    page = (tmp_path / "report.html").read_text()
    assert all(title in page for title in ("Every step", "Clusters of duplicates", "Languages", "EMAIL"))
    assert (tmp_path / "README.md").read_text().startswith("---\n")


def test_nothing_in_the_page_runs_links_or_hides() -> None:
    text = report.render(funnel())
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "a"} & {
        tag for tag, attributes in page.tags if "href" in attributes or tag != "a"
    }
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            assert name not in ("href", "src", "xlink:href") or (value or "").startswith("#")
    assert "\u202e" not in text
    assert "\x1b" not in text
    assert "<U+202E>txt.exe<U+001B>[31m" in page.text
    assert "{{ 7 * 7 }}" in page.text


def test_samples_are_cut() -> None:
    shown = next(report._samples(funnel()))["rows"][0]["text"]
    assert shown.endswith(" …")
    assert len(shown) < 700


def test_every_picture_has_a_name_and_a_table_or_numbers_beside_it() -> None:
    page = Page(report.render(funnel()))
    pictures = [attributes for tag, attributes in page.tags if tag == "svg"]
    assert len(pictures) == 7
    assert all(one["role"] == "img" and one["aria-label"] for one in pictures)
    assert sum(tag == "table" for tag, _ in page.tags) == 7 + 2  # the thresholds and the settings


def test_the_page_stays_small_whatever_the_corpus_is() -> None:
    full = funnel()
    full["steps"][0]["dropped"] = {f"reason {n}": n + 1 for n in range(3000)}
    full["samples"] = {"length": {f"reason {n}": full["samples"]["length"][NASTY] * 50 for n in range(1000)}}
    full["sources"] = {f"source {n}": {"documents": 1, "bytes": 1, "tokens": 0} for n in range(3000)}
    text = report.render(full)
    assert len(text) < 1_000_000
    assert "and 2960 more, in report.json" in text


@pytest.mark.parametrize(
    ("value", "least", "share"),
    [(2.0, True, 0.7), (2.0, False, 0.3), (2.5, True, 0.5), (-1, True, 1.0), (9, True, 0.0), (9, False, 1.0)],
)
def test_what_a_threshold_keeps(value: float, least: bool, share: float) -> None:
    assert kept([0, 1, 2, 3, 4], [1, 2, 4, 3], value, least) == pytest.approx(share)


def test_zeros_pass_a_bound_of_zero() -> None:
    assert kept([0, 0.01, 0.02], [6, 4], 0.0, False) == pytest.approx(0.6)
    assert kept([0, 0.01, 0.02], [6, 4], 0.0, True) == 1


def test_quantiles_are_bins() -> None:
    assert quantiles({"edges": [0, 1, 2, 3], "counts": [5, 4, 1]}, (0.5, 0.9, 1.0)) == [0, 1, 2]


def test_only_filters_that_are_on_have_thresholds() -> None:
    settings = {
        "min_characters": 5,
        "fineweb": {"use": "on", "max_short_lines": 0.5},
        "gopher": {"use": "off"},
        "quality": {"use": "on", "threshold": 0.4},
        "toxicity": {"use": "on", "threshold": 0.6},
    }
    found = thresholds(settings)
    assert Threshold("fineweb.short_lines", 0.5, False) in found
    assert Threshold("quality.score", 0.4, True) in found
    assert Threshold("toxicity.score", 0.6, False) in found
    assert not any(one.measure.startswith("gopher") for one in found)


def test_ones_are_a_bin_like_the_others() -> None:
    step = tally.empty("s")
    tally.note(step, [1, 1], Outcome(measures={"s.share": [0.5, 1.0], "s.words": [1.0, 700.0]}), 0.0)
    (step,) = tally.merge([[step]])
    share, words = (step["measures"][f"s.{name}"] for name in ("share", "words"))
    assert trade_off._shares(share)["edges"][-2:] == [1, 1.01]
    assert trade_off._shares(words) == words


def test_a_threshold_is_told_in_documents_and_in_text() -> None:
    step = tally.empty("s")
    # Nine short documents and a long one: by documents and by text a threshold keeps very different shares.
    tally.note(step, [100] * 9 + [9100], Outcome(measures={"s.score": [0.205] * 9 + [0.905]}), 0.0)
    steps = tally.merge([[step]])
    bounds = [Threshold("s.score", 0.5, True)]
    (row,) = trade_off.overview(steps, bounds)["rows"]
    assert row[:6] == ["s.score", "at least 0.5", "10.0%", "9.1 kB", "91.0%", "2,275"]
    assert row[6:] == ["0.2", "0.2", "0.9"]  # 91% of the text is above 0.9; for 95% the others are needed
    (listed,) = next(trade_off.measures(steps, bounds))["tables"]
    assert ["0.5 (in use)", "1", "10.0%", "9.1 kB", "91.0%", "2,275"] in listed["rows"]
    assert ["0.2", "10", "100.0%", "10.0 kB", "100.0%", "2,500"] in listed["rows"]


def test_what_every_source_gave_stands_beside_what_was_read_of_it() -> None:
    full = funnel()
    read = {**tally.empty("read"), "documents_in": 60, "documents_out": 50}
    read["counts"] = {
        "documents.a": 40,
        "bytes.a": 4096,
        "documents.b": 10,
        "bytes.b": 1024,
        "passed over.b": 10,
    }
    full["steps"] = [read, *full["steps"]]
    full["sources"] = {"a": {"documents": 20, "bytes": 2048, "tokens": 512}}
    full["settings"] |= {"sources": {"a": {"weight": 3.0}, "b": {"weight": 1.0}}, "mixture": {"total": 9}}
    (mixture,) = (one for one in report._figures(full) if one["title"] == "Mixture by source")
    assert mixture["table"]["rows"] == [
        ["a", "40", "0", "20", "4.1 kB", "2.0 kB", "50.0%", "512", "100.0%", "75.0%"],
        ["b", "10", "10", "0", "1.0 kB", "0 B", "0.0%", "0", "0.0%", "25.0%"],
    ]


def test_documents_without_a_licence_are_a_row_of_their_own() -> None:
    mit, rest = (
        {"documents": 10, "bytes": 700, "tokens": 175},
        {"documents": 20, "bytes": 2800, "tokens": 700},
    )
    full = funnel(licenses={"MIT": mit, "": rest})
    (licences,) = (one for one in report._figures(full) if one["title"] == "Licences")
    assert licences["table"]["rows"] == [
        ["not named", "20", "2.8 kB", "80.0%", "700"],
        ["MIT", "10", "700 B", "20.0%", "175"],
    ]


def test_canaries_are_counted_and_never_shown(tmp_path: Path) -> None:
    planted = canary.plan([f"document {n}" for n in range(50)], rates=(1, 8), each=3)
    canary.save(tmp_path, planted)
    report.write(tmp_path, funnel(canary=canary.told(tmp_path)))
    text = (tmp_path / "report.html").read_text()
    assert "6 made-up secrets were planted" in text
    assert "canaries.json" in text
    rows = next(
        one for one in report._figures(funnel(canary=canary.told(tmp_path))) if one["title"] == "Canaries"
    )
    assert rows["table"]["rows"] == [["1 time", "3", "3"], ["8 times", "3", "24"]]
    for name in ("report.html", "report.json", "README.md"):
        written = (tmp_path / name).read_text()
        for one in planted:
            assert one.secret not in written
            assert one.secret.split()[-1] not in written
    assert "Canaries" not in report.render(funnel(canary={}))
