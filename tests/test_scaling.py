"""The law of the benchmark `scaling`, and what it keeps between two runs; the hours of training are the benchmark's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import scaling
from benchmarks.options import Options
from matura.core import artifact
from matura.data import shards
from tests import token_shards

LAW = {"E": 1.1, "A": 40.0, "B": 300.0, "a": 0.35, "b": 0.38}


def test_a_law_is_found_again_from_losses_that_follow_it() -> None:
    points = [
        (n, ratio * n, scaling.law_at(LAW, n, ratio * n))
        for n in (1e5, 2e5, 4e5, 8e5, 1.6e6)
        for ratio in scaling.RATIOS
    ]
    found = scaling.fit(points)
    assert scaling.law_at(found, 3.2e6, 3.2e7) == pytest.approx(scaling.law_at(LAW, 3.2e6, 3.2e7), rel=1e-3)


@pytest.fixture(scope="module")
def text(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _tokens(tmp_path_factory.mktemp("tokens") / "made", seed=0)


def _tokens(place: Path, seed: int) -> Path:
    draw = np.random.default_rng(seed)
    documents = [("words", draw.integers(5, 40, 600).tolist()) for _ in range(60)]
    draft = artifact.begin(place, kind="tokens", stage="encode", version=1, config={"seed": seed}, inputs={})
    token_shards.write(draft.path, [documents[:50]], documents[50:], vocabulary=48)
    draft.commit({})
    return place


def test_a_branch_is_read_the_next_time_and_grows_on_the_same_trunk(text: Path, tmp_path: Path) -> None:
    options = Options(text=text, results=tmp_path / "results", workspace=tmp_path / "workspace")
    tokens = shards.load(text)
    whole = scaling._measure("10K", (5, 10), tokens, options)
    assert [row["tokens"] / row["parameters"] for row in whole] == pytest.approx([5, 10], rel=0.1)
    assert scaling._measure("10K", (5, 10), tokens, options) == whole
    (options.results / "scaling" / "10K-10-0.json").unlink()  # as if the run had ended before it
    again = scaling._measure("10K", (5, 10), tokens, options)
    assert again[1]["loss"] == whole[1]["loss"]
    anew = scaling._measure(
        "10K", (10,), tokens, replace(options, results=tmp_path / "x", workspace=tmp_path)
    )
    assert anew[0]["loss"] == whole[1]["loss"]  # also without the branch before


def test_branches_of_another_text_are_measured_anew(text: Path, tmp_path: Path) -> None:
    options = Options(text=text, results=tmp_path / "results", workspace=tmp_path / "workspace")
    (one,) = scaling._measure("10K", (5,), shards.load(text), options)
    other = _tokens(tmp_path / "other", seed=1)
    (two,) = scaling._measure("10K", (5,), shards.load(other), replace(options, text=other))
    assert (one["text"], two["text"]) == (artifact.load(text).id, artifact.load(other).id)
    assert one["loss"] != two["loss"]


def test_without_a_text_it_says_what_to_give() -> None:
    with pytest.raises(SystemExit, match="matura encode"):
        scaling.run(Options())
