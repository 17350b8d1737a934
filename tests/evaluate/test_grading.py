"""Marks by hand, and controls that must not pass."""

import math
import random

import pytest

from matura.core.errors import ConfigError
from matura.evaluate import gates, grading
from matura.evaluate.asking import Roll, Score, Scored, Write
from matura.evaluate.grading import METRICS, Mark, extracted
from matura.evaluate.score import Bits
from matura.evaluate.spec import Extract, Task
from matura.evaluate.tasks import Item

CHOICES = Task(name="t", kind="choices", data=("t.jsonl",), choices="c", answer="a")
WRITING = Task(
    name="w",
    kind="writing",
    data=("w.jsonl",),
    answer="answer",
    extract=(
        Extract(name="strict", pattern=r"#### (-?[0-9.,]+)"),
        Extract(name="last", pattern=r"(-?[$0-9.,]{2,})|(-?[0-9]+)", which=-1),
    ),
    ignore=(",", r"\$", r"(?s).*#### ", r"\.$"),
)
ITEM = Item("q", "one two", ("x", "yy z", "é"), 1, "t")


def replies(*logprobs: float) -> list[Scored]:
    return [Scored(value, False, 3, 1) for value in logprobs]


def mark(name: str, item: Item, found: list, task: Task = CHOICES) -> Mark:
    return METRICS[name].mark(task, item, found)


def test_accuracy_is_of_the_likeliest_choice_by_sum_by_character_and_by_byte() -> None:
    found = replies(-1.0, -2.0, -1.1)
    assert mark("acc", ITEM, found) == Mark(0.0)
    assert mark("acc_norm", ITEM, found) == Mark(1.0)  # -1/1, -2/4, -1.1/1
    assert mark("acc_bytes", ITEM, replies(-1.0, -2.4, -1.1)) == Mark(0.0)  # -1/1, -2.4/4, -1.1/2
    assert mark("acc_norm", ITEM, replies(-1.0, -2.4, -1.1)) == Mark(1.0)


def test_of_equal_choices_the_first_is_taken() -> None:
    assert mark("acc", Item("q", "c", ("a", "b"), 1, "t"), replies(-1.0, -1.0)) == Mark(0.0)


def test_any_of_several_right_choices_will_do_and_mass_is_shared() -> None:
    item = Item("q", "c", ("a", "b", "c"), 0, "t", right=(0, 2))
    found = replies(math.log(0.2), math.log(0.5), math.log(0.3))
    assert mark("acc", item, found) == Mark(0.0)
    assert mark("acc", item, replies(-3, -2, -1)) == Mark(1.0)
    assert mark("mc2", item, found).value == pytest.approx(0.5)


def test_bits_of_the_right_answer_are_weighed_by_its_bytes() -> None:
    assert mark("gold_bpb", ITEM, replies(-1.0, -2.0, -9.0)) == Mark(2.0 / math.log(2), 3)


def test_a_continuation_is_right_when_every_token_is_the_likeliest() -> None:
    task = Task(name="l", kind="continuation", data=("l.jsonl",), answer="a")
    item = Item("q", "c", ("word",), 0, "l")
    for greedy in (True, False):
        found = [Scored(-2.0, greedy, 5, 2)]
        assert mark("acc", item, found, task) == Mark(float(greedy))
        assert mark("perplexity", item, found, task) == Mark(2.0)


def test_a_text_has_bits_by_byte_and_nats_by_word() -> None:
    task = Task(name="p", kind="text", data=("p.txt",))
    item = Item("q", "three words here", (), 0, "p")
    assert mark("bpb", item, [Bits(32.0, 16, 4)], task) == Mark(32.0, 16)
    assert mark("word_perplexity", item, [Bits(32.0, 16, 4)], task) == Mark(32 * math.log(2), 3)


@pytest.mark.parametrize(
    ("written", "strict", "last"),
    [
        (" 2 + 3 = 5\n#### 1,005", 1.0, 1.0),
        (" The answer is 1005.", 0.0, 1.0),
        (" #### 7 and then 1005", 0.0, 1.0),
        (" no number", 0.0, 0.0),
    ],
)
def test_an_answer_is_found_and_compared_as_the_task_says(written: str, strict: float, last: float) -> None:
    item = Item("q", "how many?", ("so many\n#### 1005",), 0, "w")
    found = {one.name: one.mark(WRITING, item, [written]).value for one in grading.metrics(WRITING)}
    assert found == {"exact_match.strict": strict, "exact_match.last": last}


def test_of_several_matches_the_one_asked_for_counts() -> None:
    assert extracted(Extract(name="n", pattern=r"\d+", which=1), "1 2 3") == "2"
    assert extracted(Extract(name="n", pattern=r"\d+", which=3), "1 2 3") is None
    assert extracted(Extract(name="n", pattern=r"(a)|(b)"), "b") == "b"


def test_requests_follow_the_kind_of_task() -> None:
    assert grading.requests(CHOICES, ITEM)[1] == Score("one two", " yy z")
    each = Item("q", "p2", ("rest", "rest"), 1, "t", contexts=("p1", "p2"))
    assert grading.requests(CHOICES, each) == [Score("p1", " rest"), Score("p2", " rest")]
    text = Task(name="p", kind="text", data=("p.txt",))
    assert grading.requests(text, Item("q", "whole", (), 0, "p")) == [Roll("whole")]
    item = Item("q", "how?", ("so",), 0, "w")
    assert grading.requests(WRITING, item) == [Write("how?", ("\n\n",), 256)]
    both = WRITING.model_copy(update={"metrics": ("exact_match", "gold_bpb")})
    assert grading.requests(both, item)[1] == Score("how?", " so")


def test_metrics_that_do_not_exist_or_do_not_fit_are_told() -> None:
    with pytest.raises(ConfigError, match=r"t: there is no metric 'acc_nrm'; did you mean 'acc_norm'"):
        grading.metrics(CHOICES.model_copy(update={"metrics": ("acc_nrm",)}))
    with pytest.raises(ConfigError, match="t: the metric bpb is not for kind=choices"):
        grading.metrics(CHOICES.model_copy(update={"metrics": ("bpb",)}))


def test_a_task_whose_answers_are_shuffled_is_at_chance() -> None:
    """Control: a model that knows every answer knows none of any answers."""
    chance = random.Random(0)
    items = [Item(f"q{n}", "c", ("a", "b", "c", "d"), n % 4, "t") for n in range(400)]
    knows = [replies(*(-1.0 if i == item.gold else -5.0 for i in range(4))) for item in items]
    shuffled = [Item(one.id, "c", one.choices, chance.randrange(4), "t") for one in items]
    for asked, verdict in ((items, "unchanged"), (shuffled, "not measurable")):
        right = [mark("acc", item, found).value for item, found in zip(asked, knows, strict=True)]
        metric = gates.accuracy("t.acc", right, right, grading.chance(CHOICES, asked))
        ((judged,), _) = gates.judge([metric], [], resamples=1000)
        assert judged.verdict == verdict
    assert "at chance" in judged.why
