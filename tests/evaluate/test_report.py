from html.parser import HTMLParser
from types import SimpleNamespace

import pytest

from matura.evaluate import history, plots, report
from matura.evaluate.costs import Cost
from matura.evaluate.gates import Gate, accuracy, bits_per_byte, judge
from matura.evaluate.report import Context, label, render, table

NASTY = "<script>alert('x')</script> & \"quotes\" {{ 7 * 7 }}"


def results(gain=0.1, samples=(), documents=(), **more):
    metrics = [
        bits_per_byte(
            "domain.bpb",
            [100.0 + n for n in range(20)],
            [(100.0 + n) * (1 - gain) for n in range(20)],
            [100] * 20,
        ),
        accuracy("general.acc_norm", [1] * 80 + [0] * 40, [1] * 80 + [0] * 40, 0.25),
    ]
    judged, reasons = judge(metrics, [Gate("domain.bpb", "not improved")], resamples=1000)
    return {
        "line": "one line about it",
        "gate": {"passed": not reasons, "reasons": reasons},
        "metrics": [one.as_dict() for one in judged],
        "kl": None,
        "documents": list(documents),
        "samples": list(samples),
        "notes": [],
        **more,
    }


DOCUMENTS = [{"name": f"{NASTY} {n}", "parent_bits": 100.0, "child_bits": 90.0 + n} for n in range(20)]
FULL = Context(
    model=NASTY,
    training=[{"step": n, "loss": 2.0 - n / 100, "lr": 1e-3} for n in range(50)]
    + [{"step": n, "general_bpb": 0.1} for n in (0, 10)],
    curation={"files": {"seen": 3}, "dropped_examples": {"empty": [{"file": NASTY}]}},
    lineage={
        "kind": "model", "name": NASTY, "id": "ab" * 32, "line": "", "state": "missing",
        "inputs": {
            "corpus": {"kind": "raw", "name": "n", "id": "", "line": "3 files", "state": "here", "inputs": {}}
        },
    },
    costs=[Cost("finetune", NASTY, 100.0), Cost("evaluate", "this exam", 25.0)],
    settings={"panel": {"piqa": 3}, "questions": [NASTY]},
    environment={"python": "3.11"},
)  # fmt: skip


class Page(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "path", "use", "rect"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def test_a_page_needs_nothing_from_anywhere_and_runs_nothing():
    page = Page(
        render(
            results(samples=[{"question": NASTY, "parent": NASTY, "child": NASTY}], documents=DOCUMENTS), FULL
        )
    )
    assert page.open == []
    assert "script" not in {tag for tag, _ in page.tags}
    assert not {"link", "img", "iframe", "object"} & {tag for tag, _ in page.tags}
    for _, attributes in page.tags:
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in ("href", "src", "xlink:href"):
                assert value.startswith("#")
            assert "url(http" not in (value or "")
    assert "@import" not in page.text


def test_every_text_from_outside_is_shown_as_it_is():
    text = render(
        results(samples=[{"question": NASTY, "parent": NASTY, "child": NASTY}], documents=DOCUMENTS), FULL
    )
    assert "<script" not in text
    assert Page(text).text.count(NASTY) >= 3 + 1 + 1  # question and answers, title, lineage


def test_the_verdict_comes_first_with_its_reasons():
    good, bad = render(results(), Context()), render(results(gain=-0.1), Context())
    assert "Passed." in good
    assert "Did not pass." not in good
    assert "Did not pass." in bad
    assert "regressed" in bad
    bad = bad[bad.index("<h1>") :]
    assert bad.index("Did not pass.") < bad.index("regressed") < bad.index("What decided")


def test_differences_are_child_minus_parent_and_so_is_their_interval():
    row = report.row(results()["metrics"][0])
    assert row["difference"].startswith("-0.1")
    low, high = (float(x) for x in row["interval"].split(" … "))
    assert low < float(row["difference"]) < high < 0
    assert row["relative"] == "10.0% lower"
    assert (row["verdict"], row["count"]) == ("improved", 20)


def test_accuracies_are_percent_with_their_chance():
    row = report.row(results()["metrics"][1])
    assert (row["parent"], row["difference"], row["margin"]) == ("66.7%", "+0.0%", "4.0%")
    assert row["chance"] == "chance 25%"
    assert row["relative"] == ""


def test_what_is_missing_is_left_out():
    text = render(results(), Context())
    for heading in (
        "Where it comes from",
        "What it cost",
        "Answers before and after",
        "What happened to the documents",
    ):
        assert heading not in text
    full = render(results(samples=[{"question": "q", "parent": "a", "child": "b"}]), FULL)
    for heading in (
        "Where it comes from",
        "What it cost",
        "Answers before and after",
        "What happened to the documents",
    ):
        assert heading in full
    assert "2 min 05 s" in full


def test_curves_are_drawn_for_losses_and_for_forgetting():
    found = {name: set(series) for name, _, series, _ in report._curves(FULL.training)}
    assert found == {"Loss": {"trained"}, "General text, bits per byte": {"held out"}}
    assert list(report._curves([{"step": 1, "lr": 0.1}, {"step": 2, "loss": float("nan")}])) == []


def test_pictures_take_the_colour_of_the_page():
    svg = plots.gains([{"name": "a & b", "gain": 0.1, "low": 0.05, "high": 0.2}])
    assert svg.startswith("<svg ")
    assert "currentColor" in svg
    assert plots.INK not in svg
    assert "a &amp; b" in svg
    assert svg == plots.gains([{"name": "a & b", "gain": 0.1, "low": 0.05, "high": 0.2}])


def test_many_documents_keep_the_extremes():
    svg = plots.per_document([{"name": f"document {n}", "gain": n / 1000} for n in range(100)])
    assert "document 99" in svg
    assert "document 0<" in svg
    assert "document 50" not in svg


@pytest.mark.parametrize("name", ["$x$", "$\\frac{1}{2}$", "100% $ _^{"])
def test_a_name_is_no_formula(name):
    assert "<svg" in plots.per_document([{"name": name, "gain": 0.1}])


def test_tables_flatten_and_stay_short():
    rows = table({"a": {"b": 1, "c": None}, "long": list(range(1000)), "n": {str(i): i for i in range(100)}})
    assert rows[:2] == [("a.b", "1"), ("a.c", "–")]
    assert rows[2][1].startswith("1000: 0; 1; 2")
    assert rows[-1] == ("…", "43 more")


def test_labels_are_words():
    assert label("hellaswag.acc") == "HellaSwag: right"
    assert label("other.figure") == "other: figure"


def made(identity, *inputs, kind="model", path="x", seconds=1.0):
    found = {f"i{n}": one for n, one in enumerate(inputs)}
    return SimpleNamespace(
        id=identity, kind=kind, path=path, record={"stage": identity, "seconds": seconds},
        inputs={name: {"kind": one.kind} for name, one in found.items()},
        input=found.__getitem__,
    )  # fmt: skip


def test_ancestors_come_once_and_before_their_children():
    base = made("base")
    corpus = made("corpus", kind="corpus")
    tuned = made("tuned", base, corpus)
    assert [one.id for one in history.ancestors([tuned, base, corpus])] == ["base", "corpus", "tuned"]


def standing(**more):
    row = {
        "task": NASTY, "metric": "acc", "unit": "share", "better": "higher", "value": 0.3, "low": 0.2, "high": 0.4,
        "items": 80, "split": NASTY, "shots": 5, "chance": 0.25, "detectable": 0.1, "published": [],
    }  # fmt: skip
    return {**row, **more}


def test_figures_of_one_model_stand_beside_chance_power_and_what_was_published():
    published = [{"model": NASTY, "metric": "acc", "value": 0.42, "shots": 0, "source": NASTY}]
    rows = [
        standing(published=published),
        standing(low=0.26),
        standing(metric="bpb", unit="bits", chance=None, detectable=None),
    ]
    text = render({**results(), "metrics": [], "tasks": {"child": rows}}, Context(parent=""))
    page = Page(text)
    assert page.open == []
    assert "examined alone" in page.text
    assert "20.0% … 40.0%" in page.text
    assert page.text.count("at chance") == 1 + 1  # the first row, and the sentence about it
    assert "0.42" in page.text
    assert "10.0%" in page.text  # what 80 items can see
    assert NASTY in page.text
    assert "<script" not in text
    assert "Passed" not in page.text
    assert "Right answers" in page.text
