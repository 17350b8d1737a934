import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest

from matura.core.errors import ConfigError
from matura.core.records import Document
from matura.data import canary

IDS = [f"doc-{i}" for i in range(40)]


def documents() -> list[Document]:
    return [Document(id, f"first line of {id}\nsecond line\n", "s", {"k": "v"}) for id in IDS]


def test_every_secret_is_planted_as_often_as_its_rate() -> None:
    planted = canary.plan(IDS, rates=[1, 4, 16], each=3, seed=5)
    assert Counter(one.rate for one in planted) == {1: 3, 4: 3, 16: 3}
    assert len({one.secret for one in planted}) == 9
    assert all(re.fullmatch(r"canary: [a-z]{6} [a-z]{6} [a-z]{6} [0-9]{9}", one.secret) for one in planted)
    outcome = canary.make(ids=IDS, rates=[1, 4, 16], each=3, seed=5)(documents())
    assert outcome.counts == {"planted": 3 * (1 + 4 + 16)}
    for one in planted:
        holders = [document.id for document in outcome.kept if one.secret in document.text.split("\n")]
        assert tuple(sorted(holders)) == one.documents
        assert len(holders) == one.rate


def test_nothing_else_of_the_documents_changes() -> None:
    outcome = canary.make(ids=IDS, rates=[4], seed=1)(documents())
    assert outcome.dropped == []
    for before, after in zip(documents(), outcome.kept, strict=True):
        rest = [line for line in after.text.split("\n") if not line.startswith("canary: ")]
        assert "\n".join(rest) == before.text
        assert (after.id, after.source, after.meta) == (before.id, before.source, before.meta)


def test_order_and_batches_change_nothing_and_the_seed_all() -> None:
    whole = canary.make(ids=IDS, rates=[2, 8], seed=3)(documents()).kept
    step = canary.make(ids=IDS[::-1], rates=[2, 8], seed=3)
    assert [one for document in documents() for one in step([document]).kept] == whole
    one, other = (canary.plan(IDS, rates=[2], seed=seed) for seed in (3, 4))
    assert not {c.secret for c in one} & {c.secret for c in other}


def test_the_list_is_written(tmp_path: Path) -> None:
    planted = canary.plan(IDS, rates=[2], each=1)
    canary.save(tmp_path, planted)
    (row,) = json.loads((tmp_path / "canaries.json").read_text())
    assert row == {"secret": planted[0].secret, "rate": 2, "documents": list(planted[0].documents)}


@pytest.mark.parametrize(
    ("rates", "told"), [([0], "at least 1"), ([2, 2], "given once"), ([41], "in 41 documents, there are 40")]
)
def test_rates_that_cannot_be(rates: list[int], told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        canary.plan(IDS, rates=rates)


def test_others_differ_in_their_digits_only() -> None:
    secret = canary.plan(IDS, rates=[1], each=1)[0].secret
    others = list(canary.others(secret, 50))
    assert len(set(others)) == 50
    assert secret not in others
    assert {one[:-9] for one in others} == {secret[:-9]}


def test_exposure_is_the_rank_in_bits() -> None:
    others = [-float(i) for i in range(1, 1024)]
    assert canary.exposure(0.0, others) == 10.0
    assert canary.exposure(-1e9, others) == 0.0
    assert canary.exposure(-512.0, others) == pytest.approx(math.log2(1024 / 513))
    assert canary.exposure(-1.0, [-1.0]) == 0.0  # a tie is no memory
    with pytest.raises(ValueError, match="at least one other"):
        canary.exposure(0.0, [])
    with pytest.raises(ValueError, match="NaN"):
        canary.exposure(math.nan, others)
