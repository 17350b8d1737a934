import json
import math
import random

import pytest

from matura.core.errors import FormatError
from matura.data import canary
from matura.evaluate import memorisation

IDS = [f"doc-{i}" for i in range(20)]


@pytest.fixture
def secrets():
    return canary.plan(IDS, rates=[1, 8], each=4, seed=2)


def test_the_list_of_a_corpus_is_read_back(tmp_path, secrets):
    canary.save(tmp_path, secrets)
    assert memorisation.read(tmp_path / canary.FILE) == secrets


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "no canaries.json of a corpus"),
        ('[{"secret": "canary: a b c 123456789"}]', "KeyError"),
        ('[{"secret": "no digits", "rate": 1, "documents": []}]', "secret 1: expected words and 9 digits"),
        ('[{"secret": 5, "rate": 1, "documents": []}]', "secret 1: expected words"),
    ],
)
def test_another_file_is_told(tmp_path, content, message):
    (tmp_path / "x.json").write_text(content)
    with pytest.raises(FormatError, match=message):
        memorisation.read(tmp_path / "x.json")


def test_a_probe_asks_for_the_digits_and_gives_none_away(secrets):
    probe = memorisation.probe(secrets[0], 31)
    assert f"{probe.beginning} {probe.digits[0]}" == secrets[0].secret
    assert len(set(probe.digits)) == 32
    assert all(len(one) == canary.DIGITS and one.isdecimal() for one in probe.digits)
    assert not any(digit.isdecimal() for digit in probe.id.split("(x")[0])


def test_exposure_by_hand():
    """Third of eight: log2(8) - log2(3)."""
    assert memorisation.exposure([-3.0, -1.0, -2.0, -4.0, -5, -6, -7, -8]) == pytest.approx(3 - math.log2(3))
    assert memorisation.exposure([-1.0] + [-2.0] * 255) == 8
    assert memorisation.exposure([-1.0] * 256) == 0  # a model that knows no difference exposes nothing


def test_without_memory_the_mean_is_the_one_that_theory_says():
    chance = random.Random(0)
    found = [memorisation.exposure([chance.random() for _ in range(256)]) for _ in range(2000)]
    assert abs(sum(found) / len(found) - memorisation.UNTRAINED) < 0.1


def test_extraction_wants_all_digits(secrets):
    probe = memorisation.probe(secrets[0], 1)
    assert memorisation.extracted(probe, f" {probe.digits[0]}\nand more")
    assert not memorisation.extracted(probe, f" {probe.digits[0][:-1]}")
    assert not memorisation.extracted(probe, f" {probe.digits[1]}")


def test_copies_that_are_left_are_counted(secrets):
    one, two = secrets[:2]
    texts = [f"a\n{one.secret}\nb", one.secret, f"{two.secret} {one.secret}", "canary: none"]
    found = memorisation.copies(secrets, texts)
    assert (found[one.secret], found[two.secret], found[secrets[2].secret]) == (3, 1, 0)


def test_secrets_that_nobody_planted_are_the_control(secrets):
    control = canary.unplanted(3, seed=2)
    assert [one.rate for one in control] == [0, 0, 0]
    assert not {one.secret for one in control} & {one.secret for one in secrets}
    assert json.dumps([one.secret for one in control]) == json.dumps(
        [one.secret for one in canary.unplanted(3, seed=2)]
    )
