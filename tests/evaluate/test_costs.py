"""Costs from records: what was recorded, what follows from the settings of the model, and what is not known."""

import pytest

from matura.core import artifact
from matura.core.peft_settings import Tuning
from matura.evaluate import costs
from matura.evaluate.costs import Cost
from matura.model import store
from matura.model.counting import count_parameters
from tests import tiny_models


def made(folder, kind="model", stage="finetune", config=None, inputs=None, **summary):
    draft = artifact.begin(
        folder, kind=kind, stage=stage, version=1, config=config or {}, inputs=inputs or {}
    )
    if kind == "model":
        store.save(draft.path, tiny_models.network())
    return draft.commit(summary)


def test_six_for_each_parameter_and_token_and_four_for_an_adapter(tmp_path):
    products = count_parameters(tiny_models.network().config)[1]
    whole = made(tmp_path / "whole", tokens=1000)
    assert costs.of(whole).flops == pytest.approx(6 * products * 1000)
    assert costs.of(whole).tokens == 1000
    longer = made(tmp_path / "longer", config={"sequence": 64}, tokens=1000)
    assert costs.of(longer).flops > costs.of(whole).flops
    parent = tiny_models.pulled(tmp_path)
    adapter = tiny_models.adapted(tmp_path / "adapter", parent, Tuning(), tokens=1000)
    assert costs.of(adapter).flops == pytest.approx(4 * products * 1000)
    assert costs.of(parent).flops is None


def test_what_was_recorded_goes_first_and_answers_cost_two(tmp_path):
    assert costs.of(made(tmp_path / "own", stage="pretrain", tokens=10, flops=5.0)).flops == 5.0
    model = made(tmp_path / "model", tokens=0)
    sides = {"train": {"tokens": 30}, "heldout": {"tokens": 12}}
    samples = made(tmp_path / "s", "samples", "sample", inputs={"model": model}, **sides)
    products = count_parameters(tiny_models.network().config)[1]
    assert costs.of(samples).tokens == 42
    assert costs.of(samples).flops == pytest.approx(2 * products * 42)


def test_records_of_earlier_versions_have_dashes_and_the_total_adds_what_is_known():
    rows = [Cost("curate", "a", 60.0), Cost("finetune", "b", 65.0, 9.0, 7, 2e9, 3_000_000, 1000)]
    table = costs.table(rows, ["first", "second"])
    assert table["rows"] == [
        ("first (curate)", "60 s", "–", "–", "–", "–", "–"),
        ("second (finetune)", "65 s", "9.0 s", "7", "2e+09", "3.0 MB", "1.0 kB"),
        ("together", "2 min 05 s", "9.0 s", "–", "2e+09", "3.0 MB", "1.0 kB"),
    ]
