"""RAFT: what its rounds gain, beside a control and beside learning once; and whether it follows an annotator whose
rule changes.

The recipe is recipes/raft.yaml on a model that is made on the spot, judged on held-out prompts. `loop` is the recipe
with six rounds and a start that gets about one in ten right, so that there is much to find. `dice` is the same with an
annotator who throws dice: what it learns must be nothing. `once` draws as many answers as all rounds together from the
start and learns the best of them in one go, with as many tokens. In `evolving` the start writes dates in two forms; the
annotator likes one of them, and from round 3 the other. Earlier gates must still hold then: days stay as right as the
start had them, and what it knew by heart stays known. What a model no longer writes cannot be ranked, whoever likes it
now; so a round begins with answers that the start once wrote, which the annotator ranks anew, by the rule of today.
"""

from __future__ import annotations

import itertools
import json
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import raft_rewards, record, staging
from benchmarks.options import Options
from matura.align import judging
from matura.core.artifact import Artifact
from matura.core.preferences import HELDOUT, TRAIN, Ranking, read_rankings
from matura.core.workspace import Workspace
from matura.data.synthesis import programs

RECIPE = Path(__file__).parents[1] / "recipes" / "raft.yaml"
RULES = Path(raft_rewards.__file__)
ROUNDS = 6
START_TOKENS = 40_000
"""What the start of `loop` has learned: fewer than in the recipe, after which a third are right."""
EVOLVING_ROUNDS = 4
CHANGE = 3
"""The round from which on the annotator likes the other form."""
HELD_OUT = 400
MARGIN = 0.05
STEP = {"tokens": 30_000, "tokens_per_step": 768}
"""What is learned at a time where the rule changes."""
FACTS = 200
COLOURS = ("red", "green", "blue", "white", "black", "brown", "grey", "pink")
Stages = dict[str, Any]


def run(options: Options) -> bool:
    """Whether RAFT gains what it should on every seed, and the control nothing."""
    torch.set_num_threads(options.threads)
    passed = [
        case(options)
        for name, case in {"rounds": _all_rounds, "evolving": _all_evolving}.items()
        if not options.cases or name in options.cases
    ]
    return all(passed) or options.quick


def _all_rounds(options: Options) -> bool:
    """The loop of every seed; over learning once, on the held-out prompts of all seeds together."""
    loops = _by_seed(_rounds, options)
    sides = [one.pop("held_out") for one in loops]
    over = _gain(*([row for one in sides for row in one[side]] for side in ("once", "loop")))
    checks = {
        "the mean reward rises in every round": all(one["rises"] for one in loops),
        "no round falls significantly": all("regressed" not in one["verdicts"] for one in loops),
        "the gain of all rounds has a lower bound above zero": all(one["gain"]["low"] > 0 for one in loops),
        "it beats learning once from as many samples": over["low"] > 0,
        "distinct-2 falls by less than 30%": all(one["distinct_kept"] > 0.7 for one in loops),
        "dice teach nothing": all(
            one["dice"]["low"] <= 0.02 and one["dice"]["gain"] < one["gain"]["gain"] / 5 for one in loops
        ),
    }
    return _saved("raft", options, {"rounds": loops, "over_once": over}, checks)


def _all_evolving(options: Options) -> bool:
    """The annotator whose rule changes, with every seed."""
    seeds = _by_seed(_evolving, options)
    whole = [one for one in seeds if one["rounds"] == EVOLVING_ROUNDS]
    kept = ("improved", "unchanged")
    checks = {
        "no gate ends the rounds of the changing rule": len(whole) == len(seeds),
        "the share by the new rule rises in both rounds after the change": all(
            one["new"][CHANGE - 1] < one["new"][CHANGE] < one["new"][CHANGE + 1] for one in whole
        ),
        "after two rounds the gain by the new rule has a lower bound above zero": all(
            one["followed"]["low"] > 0 for one in whole
        ),
        "after two rounds more answers follow the new rule than the old": all(
            one["new"][-1] > one["old"][-1] for one in whole
        ),
        "the days stay right": all(one["right"]["verdict"] in kept for one in whole),
        "what was known by heart stays known": all(one["facts"]["verdict"] in kept for one in whole),
    }
    return _saved("raft.evolving", options, {"evolving": seeds}, checks)


def _by_seed(case: Callable[[Path, int, Options], dict[str, Any]], options: Options) -> list[dict[str, Any]]:
    """What a case finds with each seed."""
    made = []
    for seed in options.seeds:
        began = time.process_time()
        with tempfile.TemporaryDirectory(prefix="matura-raft-") as folder:
            found = case(Path(folder), seed, options)
        found["cpu_seconds"] = round(time.process_time() - began)
        print(
            json.dumps({name: one for name, one in found.items() if name != "held_out"}, indent=1), flush=True
        )
        made.append(found)
    return made


def _saved(name: str, options: Options, figures: Mapping[str, Any], checks: Mapping[str, bool]) -> bool:
    """Print and save; whether all holds."""
    record.table(["check", "holds"], [[text, holds] for text, holds in checks.items()])
    record.save(name, options, {**figures, "checks": checks})
    return all(checks.values())


def _recipe(seed: int, options: Options) -> Stages:
    """The stages of the recipe with a seed of their own; small ones where it is only tried whether they work."""
    _, stages = staging.as_run(RECIPE, ())
    stages["questions"]["heldout"] = HELD_OUT
    for one in (stages["tried_start"], stages["rounds"]["stages"]["tried"]):
        one["heldout"] = HELD_OUT
    stages["lessons"]["seed"] = 2 * seed
    stages["questions"]["seed"] = 2 * seed + 1
    for name in ("untrained", "start"):
        stages[name]["seed"] = seed
    stages["rounds"]["repeat"] = ROUNDS
    inner = stages["rounds"]["stages"]
    inner["tuned"]["seed"] = seed
    inner["judged"]["gate"] = {
        "fail_on": "regressed"
    }  # go on where nothing is gained, to see what comes of it
    stages.pop("judged")
    if options.quick:
        stages["start"]["tokens"] = 24_000
        inner["ranked"]["keep"] = {}  # so small a model gets nothing right
        inner["sampled"]["count"] = 60
        inner["tuned"]["tokens"] = 4000
        for one in (stages["tried_start"], inner["tried"]):
            one["heldout"] = 64
    return stages


def _weak(seed: int, options: Options) -> Stages:
    """The same from a start that gets about one in ten right."""
    stages = _recipe(seed, options)
    stages["start"]["tokens"] = min(START_TOKENS, stages["start"]["tokens"])
    return stages


def _made(place: Path, stages: Stages) -> dict[str, Artifact]:
    """What the stages make in the workspace of a seed; equal ones are made once."""
    return staging.recipe("raft", stages, Workspace(place / "workspace"))


def _rounds(place: Path, seed: int, options: Options) -> dict[str, Any]:
    """The loop, the same with dice, and learning once."""
    stages = _weak(seed, options)
    loop = _made(place, stages)
    last = sum(name.endswith("-judged") for name in loop)
    means = [loop["judged_start"].summary["heldout"]["mean"]]
    judged = [loop[f"rounds-{n}-judged"] for n in range(1, last + 1)]
    means += [one.summary["heldout"]["mean"] for one in judged]
    distinct = [
        loop[name].summary["heldout"]["distinct_2"]
        for name in ("tried_start", *(f"rounds-{n}-tried" for n in range(1, last + 1)))
    ]
    start, end = _rows(loop["judged_start"]), _rows(judged[-1])

    random_stages = _weak(seed, options)
    ranked = random_stages["rounds"]["stages"]["ranked"]
    ranked["rewards"], ranked["keep"] = {"own": {"dice": {"file": str(RULES)}}}, {}
    random_stages["rounds"]["stages"]["judged"].pop("gate")
    random_stages["rounds"]["stages"]["judged"].pop("previous")
    for key in ("while", "first"):
        random_stages["rounds"].pop(key)
    random_stages["rounds"]["first"] = {"tuned": "$start"}
    dice = _made(place, random_stages)

    once_stages = _weak(seed, options)
    once_stages["rounds"]["repeat"] = 1
    inner = once_stages["rounds"]["stages"]
    inner["sampled"]["count"] *= ROUNDS
    inner["tuned"]["tokens"] *= ROUNDS
    once = _made(place, once_stages)
    return {
        "seed": seed,
        "mean": means,
        "rises": all(b > a for a, b in itertools.pairwise(means)) and last == ROUNDS,
        "verdicts": [one.summary["score"]["verdict"] for one in judged],
        "ranked": [loop[f"rounds-{n}-ranked"].summary["train"] for n in range(1, last + 1)],
        "distinct_2": distinct,
        "distinct_kept": min(distinct) / distinct[0],
        "gain": _gain(start, end),
        "dice_mean": dice[f"rounds-{ROUNDS}-judged"].summary["heldout"]["mean"],
        "dice": _gain(start, _rows(dice[f"rounds-{ROUNDS}-judged"])),
        "once_mean": once["rounds-1-judged"].summary["heldout"]["mean"],
        "over_once": _gain(_rows(once["rounds-1-judged"]), end),
        "held_out": {"once": _rows(once["rounds-1-judged"]), "loop": end},
    }


def _rows(made: Artifact, name: str = HELDOUT) -> list[Ranking]:
    return list(read_rankings(made.file(name)))


def _gain(before: Sequence[Ranking], after: Sequence[Ranking]) -> dict[str, Any]:
    judged, _ = judging.compare(before, after, fail_on="regressed", margin=MARGIN, seed=0)
    return {
        name: getattr(judged, name) for name in ("parent", "child", "gain", "low", "high", "verdict", "items")
    }


def _evolving(place: Path, seed: int, options: Options) -> dict[str, Any]:
    """The annotator likes 2024-03-01 for two rounds, and then 01.03.2024."""
    stages = _recipe(seed, options)
    stages["rounds"]["repeat"] = EVOLVING_ROUNDS
    _two_forms(place, seed, stages)
    _ranked_anew(stages)
    rounds, inner = stages["rounds"], stages["rounds"]["stages"]
    likes = {
        name: _liked(old=1.0 - later, new=float(later)) for later, name in enumerate(("before", "after"))
    }
    by_taste = ("reranked", "ranked", "judged")
    for one in (stages["judged_start"], *(inner[name] for name in by_taste)):
        one["rewards"] = likes["before"]
    rounds["from"] = {CHANGE: {name: {"rewards": likes["after"]} for name in by_taste}}
    rounds["while"] = ["judged", "right"]
    right = {"stage": "rank", "rewards": {"own": {"either": {"file": str(RULES)}}}}
    stages["right_start"] = {**right, "samples": "$tried_start"}
    inner["right"] = {
        **right,
        "samples": "$tried",
        "previous": "$right_start",
        "gate": {"fail_on": "regressed"},
    }
    asked = {**stages["tried_start"], "prompts": str(place / "facts.jsonl"), "count": None, "heldout": 0}
    asked |= {"data": {"heldout": 0}, "k": 8}  # many answers to see a small loss
    exact = {"exact": {"weight": 1, "find": "text"}}
    stages["asked_start"] = asked
    stages["heart_start"] = {"stage": "rank", "samples": "$asked_start", "rewards": exact}
    inner["asked"] = {**asked, "model": "$tuned"}
    inner["heart"] = {"stage": "rank", "samples": "$asked", "rewards": exact}
    made = _made(place, stages)
    done = sum(name.startswith("rounds-") and name.endswith("-judged") for name in made)
    judged = [made["judged_start"], *(made[f"rounds-{n}-judged"] for n in range(1, done + 1))]
    shares = {
        "seed": seed,
        "rounds": done,
        "old": [_share(one, raft_rewards.iso) for one in judged],
        "new": [_share(one, raft_rewards.dots) for one in judged],
    }
    if done < EVOLVING_ROUNDS:  # a gate ended them: something fell
        verdicts = {name: made[f"rounds-{done}-{name}"].summary["score"] for name in ("judged", "right")}
        return shares | {"ended_by": verdicts}
    before, last = f"rounds-{CHANGE - 1}", f"rounds-{EVOLVING_ROUNDS}"
    follow = {name: _rejudged(made[f"{one}-judged"]) for name, one in (("before", before), ("last", last))}
    return shares | {
        "followed": _gain(follow["before"], follow["last"]),
        "right": _gain(_rows(made["right_start"]), _rows(made[f"{last}-right"])),
        "facts": _gain(_rows(made["heart_start"], TRAIN), _rows(made[f"{last}-heart"], TRAIN)),
    }


def _ranked_anew(stages: Stages) -> None:
    """Rounds of two steps: the best of old answers, ranked anew, are learned before those of answers written now."""
    inner = stages["rounds"]["stages"]
    stages["pool"] = {**inner["sampled"], "model": "$start", "seed": 0}
    inner["sampled"]["model"] = "$relearned"
    inner["ranked"]["keep"] = {"least": 1}
    inner["tuned"] |= {**STEP, "model": "$relearned"}
    stages["rounds"]["stages"] = {
        "reranked": {"stage": "rank", "samples": "$pool", "keep": {"least": 1}},
        "relearned": {**inner["tuned"], "model": "$previous.tuned", "conversations": "$reranked"},
        **inner,
    }


def _liked(*, old: float, new: float) -> dict[str, Any]:
    rules = {"iso": old, "dots": new}
    return {"own": {name: {"file": str(RULES), "weight": weight} for name, weight in rules.items()}}


def _share(made: Artifact, rule: Any) -> float:
    """Share of the answers that a rule likes."""
    return statistics.fmean(
        value for row in _rows(made) for value in rule([_completion(row, one.text) for one in row.answers])
    )


def _completion(row: Ranking, text: str) -> Any:
    return raft_rewards.Completion(row, text, "stop", 0)


def _rejudged(made: Artifact) -> list[Ranking]:
    """Held-out answers as the annotator judges them in the end."""
    from matura.data.preferences.selection import ranked

    return [
        ranked(row, raft_rewards.dots([_completion(row, one.text) for one in row.answers]))
        for row in _rows(made)
    ]


def _two_forms(place: Path, seed: int, stages: Stages) -> None:
    """Let the start learn dates in either form, by chance, and some facts by heart."""
    draw = random.Random(seed)
    rows, _ = programs.write("dates", stages["lessons"]["count"], 150, stages["lessons"]["seed"])
    lines = []
    for row in rows:
        asked, answer = (message["content"] for message in row.messages)
        told = raft_rewards.with_dots(answer) if draw.random() < 0.5 else answer
        lines.append({"prompt": asked, "response": told})
    facts = [
        {"prompt": f"colour of {word}{n}?", "response": draw.choice(COLOURS)}
        for n, word in ((n, draw.choice(("house", "tree", "car", "boat"))) for n in range(FACTS))
    ]
    (place / "lessons.jsonl").write_text("".join(json.dumps(one) + "\n" for one in [*lines, *facts * 10]))
    (place / "facts.jsonl").write_text("".join(json.dumps(one) + "\n" for one in facts))
    stages["start"] |= {"conversations": str(place / "lessons.jsonl"), "data": {"heldout": 0}}
    stages["start"]["tokens"] *= 18  # two forms and the facts are more to learn
