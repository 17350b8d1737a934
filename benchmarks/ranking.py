"""Annotators that follow a rule rank answers through the page of `matura rank`; the reward model trained on what they
saved finds the rule on held-out prompts.

Two controls: a coin teaches nothing, and who always takes the answer shown first is told by the statistic of positions.
"""

from __future__ import annotations

import html
import random
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks import record, small_writer, staging
from benchmarks.options import Options
from matura.core.artifact import Artifact
from matura.core.preferences import Answer, Ranking
from matura.core.raw import RawInput, raw_input
from matura.core.records import Conversation

LEAST = 0.9
POLITE = ("please", "thank you", "kindly", "with pleasure", "you are welcome")
THINGS = (
    "the lamp",
    "a blue cup",
    "the garden",
    "an old map",
    "the kettle",
    "her coat",
    "a wooden box",
    "the gate",
)
PLACES = (
    "in the hall",
    "under the stairs",
    "by the window",
    "near the river",
    "on the shelf",
    "behind the door",
)
REMARKS = (
    "it was there before",
    "look twice",
    "nobody moved it",
    "it is hard to see",
    "take a light with you",
)
PORT, TOKEN = 8000, "benchmark"

Key = Callable[[str, int], float]
"""(text, position) -> the less, the better; equal keys are a tie."""


def run(options: Options) -> bool:
    """Rank, train, compare and save; False when a rule is not found, or one is found where there is none."""
    import torch

    torch.set_num_threads(options.threads)
    seeds = range(options.seed, options.seed + (1 if options.quick else 3))
    figures = [row for seed in seeds for row in _seed(replace(options, seed=seed))]
    columns = (
        "annotator",
        "seed",
        "rankings",
        "pairs",
        "accuracy",
        "low",
        "high",
        "first shown",
        "ms a press",
    )
    record.table(columns, [["-" if row[name] is None else row[name] for name in columns] for row in figures])
    checks = {
        "a rule is found on held-out prompts, accuracy >= .9": all(
            row["accuracy"] >= LEAST for row in figures if row["annotator"] in ("polite", "shorter")
        ),
        "a coin teaches nothing: the interval holds .5": all(
            row["low"] <= 0.5 <= row["high"] for row in figures if row["annotator"] == "coin"
        ),
        "who follows a rule shows no bias of position": not any(
            row["biased"] for row in figures if row["annotator"] in ("polite", "shorter")
        ),
        "who takes the first is told by the position": all(
            row["biased"] and row["first shown"] == 1 for row in figures if row["annotator"] == "first"
        ),
    }
    record.table(("claim", "holds"), list(checks.items()))
    record.save("ranking", options, {"figures": figures, "checks": checks})
    return all(checks.values())


def _seed(options: Options) -> list[dict[str, Any]]:
    """What came of each annotator with the prompts and the model of one seed."""
    seed, draw = options.seed, random.Random(options.seed)
    rows = [_asked(draw, number) for number in range(options.default(None, 300, 160))]
    annotators: dict[str, Key] = {
        "polite": lambda text, place: -sum(text.count(phrase) for phrase in POLITE),
        "shorter": lambda text, place: len(text),
        "coin": lambda text, place: draw.random(),
        "first": lambda text, place: place,
    }
    with tempfile.TemporaryDirectory(prefix="ranking-") as name:
        folder = Path(name)
        talks = [
            Conversation(row.id, (*row.messages, {"role": "assistant", "content": row.answers[0].text}))
            for row in rows
        ]
        model = small_writer.taught(folder / "model", talks, steps=options.default(None, 200, 60), seed=seed)
        return [
            {"annotator": who, "seed": seed, **_annotator(folder / who, rows, key, model, options)}
            for who, key in annotators.items()
        ]


def _asked(draw: random.Random, number: int) -> Ranking:
    """A question with four answers, some of them polite, some long."""
    thing = draw.choice(THINGS)
    answers: list[str] = []
    while len(answers) < 4:
        parts = [f"{thing} is {draw.choice(PLACES)}", *draw.sample(REMARKS, draw.randrange(4))]
        for phrase in draw.sample(POLITE, draw.choice((0, 0, 1, 2))):
            parts.insert(draw.randrange(len(parts) + 1), phrase)
        if (text := ", ".join(parts) + ".") not in answers:
            answers.append(text)
    asked = {"role": "user", "content": f"{number}: where is {thing}?"}
    return Ranking(f"p{number}", (asked,), tuple(map(Answer, answers)))


def _annotator(
    folder: Path, rows: Sequence[Ranking], key: Key, model: Artifact, options: Options
) -> dict[str, Any]:
    """Rank all prompts, train a reward model on the file, and look at its held-out prompts."""
    from matura.align.ranking.journal import open_journal
    from matura.align.ranking.sitting import Sitting
    from matura.data.preferences import pairs

    folder.mkdir()
    journal = open_journal(folder / "rankings.jsonl")
    journal.add(rows)
    sitting = Sitting(journal, rows, "scripted", options.seed)
    presses = _rank(sitting, key)
    made = journal.rows()
    bias = sitting.bias()
    assert bias is not None
    # Who never read the answers has told enough by then.
    found = None if bias.share == 1 else _reward(folder, model, options.seed).summary["accuracy"]
    return {
        "rankings": len(made),
        "skipped": sitting.progress().skipped,
        "pairs": sum(len(pairs.of(one)) for one in made),
        "accuracy": found and found["value"],
        "low": found and found["low"],
        "high": found and found["high"],
        "held out": found and found["groups"],
        "first shown": bias.share,
        "biased": bias.biased,
        "ms a press": 1000 * statistics.median(presses),
    }


def _rank(sitting: Any, key: Key) -> list[float]:
    """Read the page, send its forms, until nothing is left; the seconds of each request. Where all answers are alike
    to this annotator, the prompt is skipped."""
    from starlette.testclient import TestClient

    from matura.align.ranking import server

    origin, seconds = f"http://127.0.0.1:{PORT}", []
    client = TestClient(server.application(sitting, TOKEN, PORT), base_url=origin)
    page = client.get(f"/{TOKEN}/").text
    while cards := re.findall(r'data-letter="(\w)".*?<div class="text">(.*?)</div>', page, re.DOTALL):
        keys = [key(html.unescape(text), place) for place, (_, text) in enumerate(cards)]
        order = sorted(set(keys))
        pressed = " ".join(str(order.index(one) + 1) for one in keys) + " enter" if len(order) > 1 else "s"
        turn = re.findall(r'name="turn" value="(\d+)"', page)[0]
        start = time.perf_counter()
        answer = client.post(
            f"/{TOKEN}/press",
            data={"turn": turn, "keys": pressed},
            headers={"origin": origin, "x-matura-part": "1"},
        )
        seconds.append(time.perf_counter() - start)
        assert answer.status_code == 200, answer.text
        page = answer.text
    return seconds


def _reward(folder: Path, model: Artifact, seed: int) -> Artifact:
    from matura.stages import reward

    inputs: dict[str, Artifact | RawInput] = {
        "model": model,
        "preferences": raw_input(folder / "rankings.jsonl"),
    }
    settings = {
        "method": "full",
        "data": {"heldout": 100},
        "epochs": 3,
        "optimizer": {"lr": 2e-3},
        "sequence": 128,
        "meter_every": 0,
        "seed": seed,
    }
    return staging.run(reward, folder / "reward", inputs, settings)
