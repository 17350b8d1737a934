"""The rules of `recipes/life.yaml`, which stand for people: what a command is worth beside the right one."""

import random
from functools import partial

import pytest

from matura.align.rewards import own
from matura.align.rewards.completion import Completion
from matura.core.preferences import Ranking
from tests.small_life import RULES

GOLD = "aws s3 make-bucket \\\n    --bucket mine \\\n    --region 'far away'"
PLAIN = "aws sts who-am-i"
COMMAND, SAME = (own.load(RULES, name, "test") for name in ("command", "same_command"))


def worth(said: str, gold: str = GOLD) -> float:
    (found,) = COMMAND([Completion(Ranking("r", (), facts={"gold": gold}), said, "stop", 1)])
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (GOLD, 1.0),
        ("aws s3 make-bucket --region here --bucket mine", 1.0),  # other values, another order
        ("aws s3 make-bucket --bucket=mine --region=here", 1.0),
        ('aws s3 make-bucket --bucket "mine" --region "far away"', 1.0),
        ("  aws   s3\nmake-bucket --bucket mine\n--region here\n", 1.0),
        ("aws s3 make-bucket --bucket mine --bucket mine --region here", 1.0),
        ("aws s3 make-bucket --bucket mine", 0.7 + 0.3 * 2 / 3),  # one of two, nothing else
        ("aws s3 make-bucket --bucket mine --region here --owner me", 0.7 + 0.3 * 4 / 5),
        ("aws s3 make-bucket --owner me --size 3", 0.7),
        ("aws s3 make-bucket", 0.7),
        ("aws s3 remove-bucket --bucket mine --region here", 0.2),
        ("aws s3", 0.2),
        ("aws ec2 make-bucket --bucket mine --region here", 0.0),
        ("s3 make-bucket --bucket mine --region here", 0.0),
        ("Say: " + GOLD, 0.0),
        ("aws", 0.0),
        ("", 0.0),
        ("aws s3 make-bucket --bucket 'mine --region here", 0.0),  # no shell reads it: a quote stays open
        ('aws s3 make-bucket --bucket "mine', 0.0),
        ("aws s3 make-bucket --bucket mine \\", 0.0),  # cut within a continuation
        ("aws s3 make-bucket --bucket mine --region here \\\n", 1.0),
        ("aws s3 \\\nmake-bucket \\\n--bucket mine \\\n--region here", 1.0),
        (
            'aws s3 make-bucket --bucket \'{"a": "--owner b"}\' --region here',
            1.0,
        ),  # no option stands in quotes
    ],
)
def test_what_a_command_is_worth(said: str, expected: float) -> None:
    assert worth(said) == pytest.approx(expected)
    (same,) = SAME([Completion(Ranking("r", (), facts={"gold": GOLD}), said, "stop", 1)])
    assert same == (expected >= 0.7 - 1e-9)


def test_a_command_without_options() -> None:
    assert worth(PLAIN, PLAIN) == pytest.approx(1.0)
    assert worth(f"{PLAIN} --region here", PLAIN) == pytest.approx(0.7)


def test_answers_are_judged_each_by_its_own_prompt() -> None:
    rows = [
        Completion(Ranking(gold, (), facts={"gold": gold}), said, "stop", 1)
        for gold, said in ((GOLD, GOLD), (PLAIN, GOLD), (PLAIN, PLAIN))
    ]
    assert COMMAND(rows) == pytest.approx([1.0, 0.0, 1.0])


def test_what_no_shell_reads_cannot_be_an_answer_to_compare_with() -> None:
    gold = "aws lamp put-light --name 'open"
    rows = [Completion(Ranking(gold, (), facts={"gold": gold}), said, "stop", 1) for said in (gold, GOLD)]
    assert COMMAND(rows) == [None, None]


def test_the_right_answer_is_worth_1_and_the_order_of_options_nothing() -> None:
    draw = random.Random(0)
    for _ in range(200):
        names = draw.sample(["--name", "--size", "--tags", "--dry-run", "--owner", "--id"], draw.randrange(6))
        options = [f"{name} {draw.choice(['', 'x', 'two words', 'k=v,j=w'])!r}" for name in names]
        written = partial(str.join, draw.choice([" ", " \\\n    "]))
        gold = written(["aws lamp put-light", *options])
        assert worth(gold, gold) == pytest.approx(1.0)
        shuffled = draw.sample(options, len(options))
        assert worth(written(["aws lamp put-light", *shuffled]), gold) == pytest.approx(1.0)
        some = options[: draw.randrange(len(options) + 1)]
        partly = [written(["aws lamp put-light", *draw.sample(some, len(some))]) for _ in range(2)]
        assert worth(partly[0], gold) == worth(partly[1], gold)
