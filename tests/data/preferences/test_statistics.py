"""What rankings are made of, counted and told."""

from pathlib import Path

from matura.core.preference_settings import PreferenceData
from matura.core.preferences import Answer, Ranking
from matura.data.preferences import statistics
from matura.data.preferences.loading import Loaded
from tests.data.preferences.rows import loaded, said


def row(prompt: str, *answers: Answer, annotator: str = "", group: str = "") -> Ranking:
    return Ranking(prompt, (said("user", prompt),), answers, group, annotator)


ROWS = [
    row("p", Answer("long one", 1), Answer("short", 2), Answer("x"), annotator="ann"),
    row("p", Answer("short", 2), Answer("long one", 1), Answer("x"), annotator="ann"),
    row("p", Answer("long one", 1), Answer("short", 1), annotator="bob"),
    row("q", Answer("aa", 1), Answer("aa", 2), Answer("bb", 3), Answer("cccc", 4, end="length"), group="g"),
    row("r", Answer("", liked=True), Answer("no", liked=False), group="g"),
]


def test_everything_is_counted() -> None:
    found = statistics.of(ROWS)
    assert (found.rankings, found.prompts, found.groups, found.annotators) == (5, 3, 2, 2)
    assert found.answers == {2: 2, 3: 2, 4: 1}
    assert (found.pairs, found.ties, found.equal, found.skipped, found.without) == (8, 1, 1, 2, 1)
    assert (found.liked, found.disliked) == (1, 1)
    assert (found.repeated_answers, found.repeated, found.empty, found.cut) == (1, 1, 1, 1)
    # pairs that differ in length: twice long one over short, aa and aa and bb over cccc, "" over no
    assert found.unequal == 6
    assert found.longer == 2 / 6


def test_nothing_has_no_share() -> None:
    assert statistics.of([]).longer is None
    assert statistics.of([row("p", Answer("a", 1), Answer("b", 2))]).longer is None


def test_a_prompt_on_both_sides_is_told() -> None:
    assert statistics.on_both_sides(ROWS[:3], ROWS[3:]) == 0
    assert statistics.on_both_sides(ROWS[:1], ROWS[1:]) == 2
    assert statistics.on_both_sides(ROWS[:4], ROWS[4:]) == 1  # by their group
    told = statistics.describe(Loaded(tuple(ROWS[:1]), tuple(ROWS[1:])))
    assert any("2 held-out rankings share a prompt or a group" in line for line in told)
    told = statistics.describe(Loaded(tuple(ROWS[:3]), tuple(ROWS[3:])))
    assert not any("share a prompt" in line for line in told)


def test_lines_for_people(tmp_path: Path) -> None:
    rows = [{"prompt": f"q{n}", "chosen": "longer" if n % 4 else "x", "rejected": "short"} for n in range(12)]
    same = {"prompt": "p", "chosen": "a", "rejected": "a"}
    settings = PreferenceData(heldout=3, bad_rows="drop")
    assert statistics.describe(loaded(tmp_path, *rows, same, {"chosen": 3}, settings=settings)) == [
        "mine.jsonl: pairs",
        "12 rankings of 12 prompts in 12 groups (9 to learn from, 3 held out)",
        "rankings with 2 answers: 12",
        "12 pairs; 0 rankings make none",
        "the longer answer was preferred in 75.0% of 12 pairs",
        "dropped: 1, because chosen equals rejected",
        "bad rows left out: 1",
    ]
    told = statistics.describe(Loaded(tuple(ROWS), ()))
    assert any("ties: 1; answers skipped: 2; pairs of equal texts left out: 1" in line for line in told)
    assert any("2 annotators judged 1 prompts together" in line for line in told)
