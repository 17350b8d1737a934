"""The whole stage in one recipe, everything on: where each planted document went, and why; nothing planted is left."""

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow.parquet
import pytest

from matura import cli
from matura.core.artifact import Artifact
from matura.core.artifact import load as load_artifact
from matura.core.records import Document, read_documents
from matura.core.workspace import Workspace
from matura.data.parts import Dropped, read_dropped
from tests.data.synthesis.fake_endpoint import said, serving
from tests.stages import planted

RECIPE = """\
name: whole
stages:
  known:
    stage: curate
    path: known
    engine: {{workers: 1}}
    heldout: 2
  made:
    stage: synthesize
    endpoint: {{url: "{url}", model: m, concurrency: 1}}
    tasks: {{documents: $known, kinds: [continue], count: 4}}
    heldout: 1
  corpus:
    stage: curate
    sources:
      web: {{path: web, weight: 20, license: CC0-1.0}}
      table: {{path: table.jsonl, weight: 10}}
      programs: {{path: code, kind: code, weight: 5}}
      teacher: {{made: $made, weight: 5}}
      filler: {{path: filler, weight: 2}}
    engine: {{workers: 1, part_bytes: 65536}}
    language: {{use: "on", keep: [en, de]}}
    code: {{use: "on"}}
    gopher: {{use: "on"}}
    repetition: {{use: "on"}}
    c4: {{use: "on"}}
    fineweb: {{use: "on"}}
    quality: {{use: "on", examples: examples/quality.jsonl}}
    toxicity: {{use: "on", score: learned, examples: examples/toxic.jsonl}}
    balance: "on"
    fuzzy: {{use: "on"}}
    substring: {{use: "on"}}
    against: $known
    decontaminate: {{problems: examples/problems.jsonl, columns: [question]}}
    pii: {{ip: true, national_ids: [ES], names: "tests.stages.planted:find_names"}}
    canary: {{rates: [1, 3], each: 2}}
    mixture: {{total: 120000, unit: bytes}}
    heldout: 4
  news:
    stage: curate
    path: news
    index: $corpus
    fuzzy: {{use: "on"}}
    pii: pseudonymise
    engine: {{workers: 1}}
    heldout: 1
"""
OFF = (
    *(f"{name}.use=off" for name in ("language", "code", "gopher", "repetition", "c4", "fineweb", "quality")),
    *(f"{name}.use=off" for name in ("toxicity", "fuzzy", "substring")),
    *("exact_duplicates=keep", "min_characters=1", "pii=report", "mixture.total=null", "canary.rates=[]"),
    *("against=null", "decontaminate.problems=null"),
)
DROPPED = {
    "stub": ("length", "too short"),
    "french": ("language", "language"),
    "numbers": ("language", "undetermined"),
    "made": ("read", "generated"),
    "signs": ("code", "alphanumeric"),
    "few": ("gopher", "words"),
    "repeated": ("repetition", "duplicate_paragraphs"),
    "braces": ("c4", "curly_bracket"),
    "lines": ("fineweb", "short_lines"),
    "spam": ("quality", "quality"),
    "insults": ("toxicity", "toxicity"),
    "copy": ("duplicates", "duplicate"),
    "known": ("duplicates", "duplicate"),
    "nearly-known": ("duplicates", "near duplicate"),
    "span-only": ("substring", "repeated"),
    "leak": ("decontaminate", "test item"),
}


@dataclass(frozen=True)
class Whole:
    """What the recipe made, and what it made of the corpus with every step off."""

    known: Artifact
    corpus: Artifact
    news: Artifact
    control: Artifact


def run(*words: str) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["matura", *words])
        with contextlib.suppress(SystemExit):
            cli.main()


def outputs(name: str) -> dict[str, Artifact]:
    return {stage: load_artifact(place) for stage, place in Workspace().read_run(name).items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    root = tmp_path_factory.mktemp("whole")
    planted.earlier(root / "known")
    planted.web(root / "web")
    planted.rest(root)
    planted.later(root / "news")
    planted.examples(root / "examples")
    with (
        pytest.MonkeyPatch.context() as patch,
        serving(lambda body, headers: said(planted.prose(f"teacher {body['seed']}"))) as url,
    ):
        patch.setenv("MATURA_WORKSPACE", str(root / "workspace"))
        patch.chdir(root)
        (root / "whole.yaml").write_text(RECIPE.format(url=url))
        run("run", "whole.yaml")
        made = outputs("whole")
        run("run", "whole.yaml", "news.index=null", *(f"corpus.{setting}" for setting in OFF))
        yield Whole(made["known"], made["corpus"], made["news"], outputs("whole")["corpus"])


def documents(corpus: Artifact, *sides: str) -> list[Document]:
    return [
        d for side in sides or ("train", "heldout") for d in read_documents(corpus.file(f"{side}.parquet"))
    ]


def by_stem(corpus: Artifact) -> dict[str, Document]:
    return {Path(one.source).stem: one for one in documents(corpus)}


def dropped(corpus: Artifact) -> dict[str, Dropped]:
    return {Path(one.source).stem: one for one in read_dropped(corpus.file("dropped.parquet"))}


def report(corpus: Artifact) -> dict[str, Any]:
    return dict(json.loads(corpus.file("report.json").read_text()))


def everything(corpus: Artifact) -> str:
    """All files as text; tables are written out cell by cell."""
    texts = []
    for path in sorted(corpus.path.rglob("*")):
        if path.suffix == ".parquet":
            texts.append(json.dumps(pyarrow.parquet.read_table(path).to_pylist(), ensure_ascii=False))
        elif path.is_file():
            texts.append(path.read_bytes().decode("utf-8", "replace"))
    return "\n".join(texts)


@pytest.mark.parametrize("name", DROPPED)
def test_what_was_planted_is_dropped_by_its_step_for_its_reason(whole: Whole, name: str) -> None:
    one = dropped(whole.corpus)[name]
    assert (one.step, one.reason) == DROPPED[name], one
    assert name not in by_stem(whole.corpus)
    steps = {step["name"]: step for step in report(whole.corpus)["steps"]}
    assert steps[one.step]["dropped"][one.reason] >= 1


@pytest.mark.parametrize("name", sorted(DROPPED.keys() - {"made"}))
def test_with_its_step_off_it_comes_through(whole: Whole, name: str) -> None:
    assert name in by_stem(whole.control)


def test_nothing_is_dropped_but_what_was_planted(whole: Whole) -> None:
    near = {"table.jsonl#6", "table"}
    strange = {
        name: (one.step, one.reason, one.detail)
        for name, one in dropped(whole.corpus).items()
        if name not in DROPPED and one.step != "mixture" and name not in near and "table" not in one.source
    }
    assert strange == {}
    found = by_stem(whole.corpus)
    assert {f"clean{i}" for i in range(planted.CLEAN)} <= found.keys()
    assert {f"german{i}" for i in range(planted.GERMAN)} <= found.keys()
    assert {f"program{i}" for i in range(planted.PROGRAMS)} <= found.keys()
    assert {"span-one", "span-two", "personal"} <= found.keys()


def test_the_funnel_adds_up(whole: Whole) -> None:
    funnel = report(whole.corpus)
    steps = funnel["steps"]
    assert [step["name"] for step in steps][:2] == ["read", "length"]
    for step in steps:
        assert step["documents_in"] - step["documents_out"] == sum(step["dropped"].values()), step["name"]
    for before, after in pairwise(steps):
        if after["name"] not in ("duplicates",):
            assert before["documents_out"] == after["documents_in"], (before["name"], after["name"])
    kept = funnel["train"]["documents"] + funnel["heldout"]["documents"]
    assert kept == steps[-1]["documents_out"] == len(documents(whole.corpus))
    assert funnel["languages"]["de"]["documents"] == planted.GERMAN
    assert funnel["licenses"]["CC0-1.0"]["documents"] == funnel["sources"]["web"]["documents"]


def test_copies_are_traceable_across_sources_and_to_the_other_corpus(whole: Whole) -> None:
    rows = pyarrow.parquet.read_table(whole.corpus.file("pairs.parquet")).to_pylist()
    pairs = {row["dropped"]: row for row in rows}
    kept, gone = by_stem(whole.corpus), dropped(whole.corpus)
    exact = pairs[gone["copy"].id]
    assert (exact["kept"], exact["jaccard"], exact["kind"]) == (kept["clean2"].id, 1.0, "exact")
    near = next(row for row in rows if row["kept"] == kept["clean5"].id)  # the longer one, of another source
    assert near["kind"] == "near"
    assert 0.9 < near["jaccard"] < 1
    known = {Path(one.source).stem: one.id for one in documents(whole.known)}
    for name, source, kind in (("known", "known3", "exact"), ("nearly-known", "known4", "near")):
        row = pairs[gone[name].id]
        assert (row["kept"], row["kind"], row["reference"]) == (known[source], kind, True)
    assert len(rows) == 4


def test_a_repeated_span_is_left_once(whole: Whole) -> None:
    words = " ".join(planted.span().split())
    held = [name for name, one in by_stem(whole.corpus).items() if words in " ".join(one.text.split())]
    assert len(held) == 1
    assert sum(words in " ".join(one.text.split()) for one in documents(whole.control)) == 3


def test_no_personal_data_is_left_in_any_file(whole: Whole) -> None:
    written = everything(whole.corpus)
    found = [value for value in (*planted.VALUES.values(), *planted.NAMES) if value in written]
    assert found == []
    assert "Wilhelmina" not in written
    text = by_stem(whole.corpus)["personal"].text
    for kind in (*planted.VALUES, "NAME"):
        assert f"<{kind}>" in text, kind
    assert {one.meta.get("title") for one in documents(whole.corpus) if one.source.startswith("table")} == {
        "Row of <EMAIL>"
    }
    counts = whole.corpus.summary["pii"]["counts"]
    assert counts == {**dict.fromkeys(planted.VALUES, 1), "NAME": 2, "EMAIL": 1 + planted.TABLE}
    control = everything(whole.control)
    assert all(value in control for value in planted.VALUES.values())


def test_canaries_are_in_train_as_often_as_they_should(whole: Whole) -> None:
    rows = json.loads(whole.corpus.file("canaries.json").read_text())
    texts = [one.text for one in documents(whole.corpus, "train")]
    assert sorted(row["rate"] for row in rows) == [1, 1, 3, 3]
    for row in rows:
        assert sum(row["secret"] in text for text in texts) == row["rate"]


def test_only_the_source_that_is_over_its_share_is_cut(whole: Whole) -> None:
    over = [one for one in dropped(whole.corpus).values() if one.step == "mixture"]
    assert over
    assert {one.detail for one in over} == {"filler"}
    sources = report(whole.corpus)["sources"]
    assert 0 < sources["filler"]["bytes"] <= 120000 * 2 / 42
    assert sources["teacher"]["documents"] == 3
    assert {one.meta["kind"] for one in documents(whole.corpus) if one.meta["origin"] == "teacher"} == {
        "synthetic"
    }


def test_news_leave_out_what_the_index_knows_and_share_pseudonyms(whole: Whole) -> None:
    gone, kept = dropped(whole.news), by_stem(whole.news)
    assert {name: one.reason for name, one in gone.items()} == {
        "again": "duplicate",
        "nearly": "near duplicate",
        "masked": "duplicate",  # the index has its letters from before they were masked
    }
    assert {f"new{i}" for i in range(8)} | {"mail0", "mail1"} == kept.keys()
    one, other = (kept[f"mail{i}"].text.rpartition("Mail ")[2] for i in range(2))
    assert one == other
    assert "@example.com" in one
    assert not any(value in everything(whole.news) for value in planted.VALUES.values())
    index = pyarrow.parquet.read_table(whole.news.file("dedup/signatures.parquet"))
    both = {d.id for d in (*documents(whole.corpus), *documents(whole.news))}
    assert set(index["id"].to_pylist()) == both
