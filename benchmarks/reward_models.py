"""Reward models on preferences of people, beside length, words and shuffled controls.

`rule`: polite answers are preferred, made on the spot. `hh`: harmless dialogues, some hundred conversations held out.
`oasst`: ranked answers of conversation trees, five folds by tree, each judged by a model that never saw its trees; on
all pairs and on those of like length. `gsm8k`: right solutions over wrong ones. The last three need `--preferences`, a
folder with the files of `FILES`.

Control: the same training with the order of every ranking shuffled, held-out rankings as they are. How much of an
encoder is tuned, at which rate and how long was chosen on a third of the HH dialogues to learn from.

Finished runs are kept in `--results`/reward_models, so the hours may be spent in pieces, also side by side (`--cases`).
"""

from __future__ import annotations

import hashlib
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record, staging
from benchmarks.options import Options
from matura.core.artifact import Artifact
from matura.core.preferences import Answer, Pair, Ranking

FILES = {
    "hh": "hh.harmless_base.test.jsonl.gz",
    "oasst": "oasst.en_100_tree.jsonl",
    "gsm8k": "gsm8k.example_solutions.jsonl",
}
HELD = {"hh": 500, "gsm8k": 250}
FOLDS = 5
ALIKE = 0.2  # pairs of like length: the shorter answer has at least 1 - this of the longer one's characters
SETTINGS: dict[str, dict[str, Any]] = {  # by base model: what fits it
    "minilm-l6": {
        "method": "full",
        "freeze": {"embeddings": True, "layers": 3},
        "optimizer": {"lr": 1e-4},
        "epochs": 1,
    },
    "smollm2-135m-instruct": {"method": "lora", "lora": {"rank": 8}, "epochs": 1},
}
OWN: dict[str, dict[str, Any]] = {"rule": {"epochs": 6, "tokens_per_step": 512}}  # short texts, few of them
POLITE = ("please", "thank you", "kindly", "with pleasure")
OF_PAIRS = "of_pairs"
PARTS = ("it is in the hall", "look under the stairs", "by the window", "nobody knows", "near the old gate")

Side = tuple[Ranking, ...]


@dataclass(frozen=True)
class Case:
    """Training and held-out rankings; several for folds."""

    name: str
    splits: tuple[tuple[Side, Side], ...]


def run(options: Options) -> bool:
    """Train, judge, compare and save; False when a claim does not hold."""
    import torch

    from benchmarks.reference import find_model

    torch.set_num_threads(options.threads)
    base = find_model(options.base)
    seeds = range(options.seed, options.seed + (1 if options.quick else 3))
    figures = []
    for case in _cases(options):
        for seed in seeds:
            for shuffled in (False, True):
                if shuffled and case.name == "gsm8k":
                    continue
                figures.append(_kept(case, base, seed, shuffled, options))
                print(
                    {name: figures[-1][name] for name in ("case", "seed", "shuffled", "accuracy")}, flush=True
                )
    together = _together(figures)
    figures = [{name: one[name] for name in one if name != OF_PAIRS} for one in figures]
    _show(figures)
    checks = _checks(figures, together)
    record.table(("claim", "holds"), list(checks.items()))
    found = {"base": options.base, "figures": figures, "together": together, "checks": checks}
    own = "" if options.base == Options.base else f".{options.base}"
    record.save(f"reward_models{own}", options, found)
    return all(checks.values()) or options.quick


def _cases(options: Options) -> Iterator[Case]:
    wanted = options.cases or ("rule", *FILES)
    if "rule" in wanted:
        rows = _rule(options.default(None, 500, 90), options.seed)
        cut = len(rows) // 5
        yield Case("rule", ((tuple(rows[cut:]), tuple(rows[:cut])),))
    for name, file in FILES.items():
        if name in wanted and options.preferences is not None:
            yield _people(name, options.preferences / file, options)


def _rule(count: int, seed: int) -> list[Ranking]:
    """Of two answers the one with a polite phrase is preferred, whatever its length."""
    draw, rows = random.Random(seed), []
    for n in range(count):
        texts = []
        for polite in (True, False):
            parts = draw.sample(PARTS, draw.randrange(1, 4))
            if polite:
                parts.insert(draw.randrange(len(parts) + 1), draw.choice(POLITE))
            texts.append(", ".join(parts))
        answers = [Answer(texts[0], rank=1), Answer(texts[1], rank=2)]
        draw.shuffle(answers)
        asked = {"role": "user", "content": f"{n}: where is it?"}
        rows.append(Ranking(f"rule-{n}", (asked,), tuple(answers)))
    return rows


def _people(name: str, path: Path, options: Options) -> Case:
    from matura.core.preference_settings import PreferenceData
    from matura.core.raw import raw_input
    from matura.data.preferences import loading, sides

    held = 0 if name == "oasst" else options.default(None, HELD.get(name, 0), 20)
    loaded = loading.load(raw_input(path), PreferenceData(heldout=held, bad_rows="drop"))
    most = 10**9 if not options.quick else 60
    if name != "oasst":
        return Case(name, ((loaded.train[:most], loaded.heldout[:most]),))
    rows = loaded.train[:most]
    fold_of = [int(hashlib.sha256(group.encode()).hexdigest(), 16) % FOLDS for group in sides.groups(rows)]
    splits = []
    for fold in range(FOLDS if not options.quick else 1):
        learned = tuple(row for row, its in zip(rows, fold_of, strict=True) if its != fold)
        splits.append((learned, tuple(row for row, its in zip(rows, fold_of, strict=True) if its == fold)))
    return Case(name, tuple(splits))


def _kept(case: Case, base: Artifact, seed: int, shuffled: bool, options: Options) -> dict[str, Any]:
    """What was found before by the same run, or now."""
    name = f"reward_models/{options.base}-{case.name}-{seed}{'-shuffled' if shuffled else ''}"
    return record.kept(name, options, lambda: _measure(case, base, seed, shuffled, options))


def _measure(case: Case, base: Artifact, seed: int, shuffled: bool, options: Options) -> dict[str, Any]:
    """One model for each split, and the figures over the held-out pairs of all splits."""
    from matura.align import baselines
    from matura.align.reward_measures import accuracy, ahead, calibration, length_correlation
    from matura.data.preferences import pairs, sides

    found: dict[str, list[float]] = {name: [] for name in ("model", "longer", "shorter", "words")}
    held: list[Pair] = []
    groups: list[str] = []
    began, cpu, summaries = time.perf_counter(), time.process_time(), []
    for train, out in case.splits:
        learned = _shuffled(train, seed) if shuffled else train
        made, its, margins = _trained(case.name, learned, out, base, seed, options)
        summaries.append(made.summary)
        named = sides.groups(learned)
        words = baselines.fit(
            [pair for row in learned for pair in pairs.of(row)],
            [group for row, group in zip(learned, named, strict=True) for _ in pairs.of(row)],
        )
        found["model"] += margins
        found["longer"] += baselines.longer(its.pairs)
        found["shorter"] += baselines.shorter(its.pairs)
        found["words"] += words.margins(its.pairs)
        held += its.pairs
        groups += its.groups
    spent = {
        "seconds": round(time.perf_counter() - began),
        "cpu_seconds": round(time.process_time() - cpu),
    }
    all_of = {name: _margins(values, held, groups) for name, values in found.items()}
    alike = [_alike(pair) for pair in held]
    own = all_of["model"]
    return {
        "case": case.name,
        "seed": seed,
        "shuffled": shuffled,
        **{name if name != "model" else "accuracy": _told(accuracy(one)) for name, one in all_of.items()},
        "ahead": {name: asdict(ahead(own, one)) for name, one in all_of.items() if name != "model"},
        "alike": {name: _told(accuracy(one.where(alike))) for name, one in all_of.items()},
        "calibration_error": getattr(calibration(own), "error", None),
        "length_correlation": length_correlation(own, found["longer"]),
        "learned_pairs": sum(one["pairs"] for one in summaries),
        "dropped_pairs": sum(one["dropped_pairs"] for one in summaries),
        "tokens": sum(one["tokens"] for one in summaries),
        **spent,
        **({OF_PAIRS: _of_pairs(found["model"], held, groups)} if len(case.splits) > 1 else {}),
    }


def _of_pairs(margins: Sequence[float], held: Sequence[Pair], groups: Sequence[str]) -> dict[str, list[Any]]:
    """What is needed of every pair to look at several seeds together."""
    return {
        "margins": list(margins),
        "weights": [pair.weight for pair in held],
        "groups": list(groups),
        "alike": list(map(_alike, held)),
    }


def _together(figures: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Accuracies over all seeds, where the pairs of one are few. What the seeds say of one pair, and pairs of one tree,
    are drawn together, so that more seeds do not make more pairs."""
    from matura.align.reward_measures import accuracy, margins

    made = {}
    for name in {(one["case"], one["shuffled"]): None for one in figures if OF_PAIRS in one}:
        its = [one[OF_PAIRS] for one in figures if (one["case"], one["shuffled"]) == name]
        values, weights, groups, alike = (
            [value for one in its for value in one[key]] for key in ("margins", "weights", "groups", "alike")
        )
        every = margins(values, weights, groups)
        told = {"accuracy": _told(accuracy(every)), "alike": _told(accuracy(every.where(alike)))}
        made[f"{name[0]}{', shuffled' if name[1] else ''}"] = {"seeds": len(its), **told}
    return made


def _margins(values: Sequence[float], held: Sequence[Pair], groups: Sequence[str]) -> Any:
    from matura.align.reward_measures import margins

    return margins(values, [pair.weight for pair in held], groups)


def _told(share: Any) -> dict[str, Any] | None:
    return None if share is None else asdict(share)


def _alike(pair: Pair) -> bool:
    one, other = sorted((len(pair.chosen.text), len(pair.rejected.text)))
    return one >= (1 - ALIKE) * other


def _shuffled(rows: Side, seed: int) -> Side:
    """The same answers, with what is known about them dealt out anew."""
    draw, made = random.Random(f"shuffle/{seed}"), []
    for row in rows:
        order = draw.sample(range(len(row.answers)), len(row.answers))
        answers = [
            replace(one, rank=row.answers[i].rank, score=row.answers[i].score, liked=row.answers[i].liked)
            for one, i in zip(row.answers, order, strict=True)
        ]
        made.append(replace(row, answers=tuple(answers)))
    return tuple(made)


def _trained(
    case: str, train: Side, out: Side, base: Artifact, seed: int, options: Options
) -> tuple[Artifact, Any, list[float]]:
    """A reward model of the stage, the held-out pairs, and their margins."""
    from matura.align.reward_model import Judge
    from matura.align.reward_worth import held
    from matura.stages import reward

    with tempfile.TemporaryDirectory(prefix="reward-") as name:
        folder = Path(name)
        inputs = {"model": base, "preferences": staging.preferences(folder / "preferences", train, out)}
        settings = {
            **SETTINGS.get(options.base, SETTINGS["smollm2-135m-instruct"]),
            **OWN.get(case, {}),
            "meter_every": 0,
            "seed": seed,
            **({"sequence": 128, "epochs": 1} if options.quick else {}),
        }
        made = staging.run(reward, folder / "reward", inputs, settings)
        judge = Judge.load(made.path)
        its = held(out, judge.model, judge.format, made.config["sequence"])
        return made, its, [float(one) for one in its.judged(judge).values]


def _show(figures: Sequence[dict[str, Any]]) -> None:
    columns = (
        "case",
        "seed",
        "shuffled",
        "pairs",
        "accuracy",
        "low",
        "high",
        "longer",
        "words",
        "ece",
        "cpu s",
    )
    rows = []
    for one in figures:
        own = one["accuracy"]
        told = [own[name] for name in ("value", "low", "high")]
        others = [one[name]["value"] for name in ("longer", "words")]
        facts = [one["case"], one["seed"], one["shuffled"], own["pairs"]]
        rows.append([*facts, *told, *others, one["calibration_error"], one["cpu_seconds"]])
    record.table(columns, rows)


def _checks(figures: Sequence[dict[str, Any]], together: dict[str, dict[str, Any]]) -> dict[str, bool]:
    """What must hold of the cases that were run: goals for the mean over seeds, bounds for every seed, or for all
    together."""

    def told(case: str, shuffled: bool, what: str) -> list[float]:
        return [
            one["accuracy"][what] for one in figures if (one["case"], one["shuffled"]) == (case, shuffled)
        ]

    mean = statistics.fmean
    claims: dict[str, tuple[list[float], Callable[[list[float]], bool]]] = {
        "rule: accuracy >= .95": (told("rule", False, "value"), lambda x: mean(x) >= 0.95),
        "rule, shuffled: accuracy <= .65": (told("rule", True, "value"), lambda x: mean(x) <= 0.65),
        "hh: accuracy >= .60": (told("hh", False, "value"), lambda x: mean(x) >= 0.60),
        "hh: lower bound > .542, every seed": (told("hh", False, "low"), lambda x: min(x) > 0.542),
        "hh, shuffled: accuracy <= .55": (told("hh", True, "value"), lambda x: mean(x) <= 0.55),
        "oasst, pairs of like length: lower bound > .5, all seeds together": (
            [(one["alike"] or {"low": np.nan})["low"] for name, one in together.items() if name == "oasst"],
            lambda x: x[0] > 0.5,
        ),
        "oasst, shuffled: accuracy <= .55": (told("oasst", True, "value"), lambda x: mean(x) <= 0.55),
    }
    return {claim: bool(holds(values)) for claim, (values, holds) in claims.items() if values}
