"""Rows changed at random, of every form: rankings that can be written and read again, or FormatError."""

import random
from contextlib import suppress
from pathlib import Path
from typing import Any

from matura.core.errors import FormatError
from matura.core.preferences import Ranking, read_rankings, write_rankings
from matura.data.preferences import export, forms, pairs, statistics, trees
from matura.data.preferences.prompts import _form_of, _read
from tests.data.conversations.test_fuzz import changed
from tests.data.preferences.rows import said
from tests.data.preferences.test_trees import flat, tree

ASKED = [said("system", "s"), said("user", "q")]
ROWS: list[dict[str, Any]] = [
    {"prompt": "q", "chosen": "a", "rejected": "b", "score_chosen": 1, "score_rejected": 0.5},
    {"prompt": ASKED, "chosen": [said("assistant", "a")], "rejected": [said("assistant", "b")],
     "tools": [{"name": "f"}]},
    {"chosen": [*ASKED, said("assistant", "a")], "rejected": [*ASKED, said("assistant", "b")]},
    {"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"},
    {"prompt": ASKED, "completion": "a", "label": True},
    {"prompt": "q", "completions": [{"response": "b", "overall_score": 2.5}, {"response": "a", "rank": 1}]},
    {"question": "q", "responses": ["a", "b"], "scores": [1, 2]},
    {"question": "q", "one": {"solution": "a", "is_correct": True}, "two": {"solution": "b", "is_correct": False}},
    {"messages": ASKED, "answers": [{"text": "a", "rank": 1}, {"text": "b", "score": 2.0, "liked": True}],
     "annotator": "x", "facts": {"gold": "1"}},
    tree(),
]  # fmt: skip


def test_random_rows_are_rankings_or_told(tmp_path: Path) -> None:
    draw = random.Random(0)
    kept: list[Ranking] = []
    refused = dropped = 0
    for number in range(3000):
        row = changed(ROWS[number % len(ROWS)], draw)
        if not isinstance(row, dict):
            continue
        form = draw.choice(["auto", *forms._READERS]) if draw.random() < 0.2 else "auto"
        with suppress(FormatError):
            list(_read(_form_of(row), row, "x"))
        try:
            found = list(forms.read(forms.form_of(row) if form == "auto" else form, row, f"row {number}"))
        except FormatError:
            refused += 1
            continue
        kept += [one for one in found if isinstance(one, Ranking)]
        dropped += any(not isinstance(one, Ranking) for one in found)
    write_rankings(tmp_path / "all.jsonl", kept)
    assert list(read_rankings(tmp_path / "all.jsonl")) == kept
    assert export.write_trl(tmp_path / "trl.jsonl", kept) == sum(len(pairs.of(one)) for one in kept)
    assert statistics.of(kept).rankings == len(kept) > 500
    assert refused > 500
    assert dropped


def test_random_messages_of_trees_are_rankings_or_told(tmp_path: Path) -> None:
    draw, kept, bad = random.Random(1), list[Ranking](), 0
    for _ in range(500):
        rows = [made for one in flat(tree()) if isinstance(made := changed(one, draw), dict)]
        for found in trees.from_messages([(f"row {n}", one) for n, one in enumerate(rows)]):
            if isinstance(found, Ranking):
                kept.append(found)
            else:
                bad += 1
    write_rankings(tmp_path / "all.jsonl", kept)
    assert list(read_rankings(tmp_path / "all.jsonl")) == kept
    assert len(kept) > 50
    assert bad > 50
