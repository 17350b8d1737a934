"""The part of the report about groups of people."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import pytest

from matura.core.records import Document
from matura.data import groups, report, tally, work
from matura.data.filters import balance
from matura.data.filters.toxicity import ToxicityStep, make
from matura.data.steps import Outcome
from tests.data.test_report import funnel


class Cut:
    """Drops what speaks of women."""

    name = "cut"

    def __call__(self, documents: Sequence[Document]) -> Outcome:
        return Outcome([one for one in documents if "women" not in one.text])


class Rename:
    """Changes a text."""

    name = "rename"

    def __call__(self, documents: Sequence[Document]) -> Outcome:
        return Outcome(
            [replace(one, text=one.text.replace("Two men", "Two boys and men")) for one in documents]
        )


def counted(count: int) -> dict[str, Any]:
    texts = ["Two women met.", "Two men met.", "Nobody met anybody."] * count
    run = work._Run([Cut()], balance=True)
    list(run.through(Document(str(n), text, "here", {}) for n, text in enumerate(texts)))
    return funnel(steps=tally.merge([list(run.tallies.values())]))


def test_mentions_before_and_after_every_step() -> None:
    (shown,) = groups.figures(counted(60))
    assert shown["table"]["heads"] == ["group", "before", "cut", "kept"]
    assert shown["table"]["rows"] == [
        ["gender.men", "60", "60", "100.0%"],
        ["gender.women", "60", "0", "0.0%"],
    ]
    assert "<svg" in shown["svg"]
    assert "Of all text, 68.9% was kept" in shown["note"]
    page = report.render(counted(60))
    assert "Balance: mentions of groups" in page
    assert "Balance" not in report.render(funnel())


def test_few_mentions_are_not_drawn() -> None:
    (shown,) = groups.figures(counted(3))
    assert (shown["svg"], shown["table"]["rows"][1][0]) == ("", "gender.women")


def unfair(texts: Sequence[str]) -> list[float]:
    """Finds toxic whatever speaks of Muslims."""
    return [0.9 if "muslim" in text else 0.1 for text in texts]


def alarms(**more: Any) -> dict[str, Any]:
    score = f"{__name__}:unfair"
    step = make(score=score, **more)
    assert isinstance(step, ToxicityStep)
    settings = {
        "toxicity": {"use": "on", "score": score, "threshold": 0.5, **more},
        "pii": {"action": "mask"},
    }
    (shown,) = groups.figures(funnel(steps=[], settings=settings, filters={"toxicity": step.report()}))
    return shown


def test_false_alarms_before_and_after_the_mitigation() -> None:
    before, after = alarms(), alarms(group_thresholds="equal-rates")
    assert before["table"]["rows"][0] == ["religion.muslims", "33.3%", "33.3%", "0.5"]
    assert "33.3 points apart" in before["note"]
    assert "would even the rates out" in before["note"]
    assert after["table"]["rows"][0] == ["religion.muslims", "33.3%", "0.0%", "0.9"]
    assert "33.3 points apart; with a threshold for each group, as used, 0.0." in after["note"]


def test_a_filter_without_false_alarms_is_told_so() -> None:
    settings = {"toxicity": {"use": "on", "threshold": 0.5}, "pii": {"action": "mask"}}
    told = make(threshold=0.5).report()  # type: ignore[attr-defined]
    (shown,) = groups.figures(funnel(steps=[], settings=settings, filters={"toxicity": told}))
    assert shown["note"].endswith("It drops none of them.")
    assert shown["svg"] == ""


def test_texts_are_counted_again_only_when_a_step_changed_them(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def noted(texts: Iterable[str]) -> Counter[str]:
        seen.extend(given := list(texts))
        return mentions(given)

    mentions = balance.mentions
    monkeypatch.setattr(balance, "mentions", noted)
    run = work._Run([Cut(), Rename()], balance=True)
    texts = ["Two women met.", "Two men met."]
    list(run.through(Document(str(n), text, "here", {}) for n, text in enumerate(texts)))
    assert seen == [*texts, "Two boys and men met."]
    assert run.tallies["rename"]["mentions"] == {"in.gender.men": 1, "out.gender.men": 2}


def test_equal_documents_in_a_batch_are_all_counted() -> None:
    run = work._Run([Cut()], balance=True)
    list(run.through([Document("same", "Two men met.", "here", {})] * 2))
    assert run.tallies["cut"]["mentions"] == {"in.gender.men": 2, "out.gender.men": 2}
