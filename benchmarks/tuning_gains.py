"""What each way to fine-tune gains on a real task, as a share of what full tuning gains, and what it costs the rest.

The same weights, rows in the same order, tokens and schedule; each method with its own default rate, and full tuning
with higher ones too, of which the best counts: a share of a poor full tuning says nothing. The gain is in bits per byte
of held-out answers. General text is compared at the same gain, on the way there: who learns less also forgets less,
which says nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import itemgetter
from pathlib import Path
from typing import Any

from benchmarks import record, reference, skill
from benchmarks.options import Options

METHODS: dict[str, dict[str, Any]] = {
    "full": {"method": "full"},
    "full-1e-4": {"method": "full"},
    "full-2e-4": {"method": "full"},
    "lora": {"method": "lora", "lora": {"rank": 4, "alpha": 8.0}},
    "bottleneck": {"method": "bottleneck"},
    "prefix": {"method": "prefix", "prefix": {"text": "A question, and its answer worked out step by step:"}},
}
RATES = {"full-1e-4": 1e-4, "full-2e-4": 2e-4}
"""Learning rates other than the method's own."""
GOALS = {"lora": 0.9, "bottleneck": 0.8, "prefix": 0.5}
"""Least shares of the gain of full tuning."""
MOST_TRAINED = 0.01
"""Share of the parameters that LoRA may train to reach its goal."""
MATCHED = 0.9
"""Of the smaller gain of two methods: where their costs on general text are compared."""
LENGTH, PER_STEP, LOOKS = 512, 1024, 8
LOOKED_AT = 8192  # tokens of held-out answers, and of general text, in one look


def run(options: Options) -> bool:
    """Train every method, print and save; False when one misses its share."""
    import torch

    torch.set_num_threads(options.threads)
    tokens = options.default(options.tokens, 60_000, 2 * PER_STEP)
    rows = skill.read(None if options.text is None else str(options.text), options.seed)
    found = {}
    for name, settings in METHODS.items():
        if not options.cases or name in options.cases:
            found[name] = _kept(options, name, settings, rows, tokens)
            print(
                f"  {name}: {found[name]['gain']:.4f} bits per byte in {found[name]['seconds']:.0f} s",
                flush=True,
            )
    if not found:
        raise SystemExit(f"--cases: expected some of {', '.join(METHODS)}")
    full = max(
        (one for name, one in found.items() if name.startswith("full")), key=itemgetter("gain"), default=None
    )
    figures = {name: {**one, **_beside(one, full)} for name, one in found.items()}
    columns = (
        "method",
        "trained",
        "gain",
        "of full",
        "general at the end",
        "general at equal gain",
        "of full there",
    )
    record.table(columns, [[name, *_row(one)] for name, one in figures.items()])
    checks = {
        name: one["share_of_full"] >= GOALS[name]
        for name, one in figures.items()
        if name in GOALS and one["share_of_full"] is not None
    }
    if "lora" in figures:
        checks["lora trains under 1%"] = figures["lora"]["trained_share"] < MOST_TRAINED
    told = {"task": rows.name, "tokens": tokens, "goals": GOALS, "methods": figures, "checks": checks}
    record.save("tuning_gains", options, told)
    return options.quick or all(checks.values())


def _kept(
    options: Options, name: str, settings: Mapping[str, Any], rows: skill.Skill, tokens: int
) -> dict[str, Any]:
    """What was found before by the same run, or now: a method takes many minutes."""
    task = rows.name.replace(" ", "-")
    place = f"tuning_gains/{Path(options.model).name}-{task}-{name}-{tokens}-{options.seed}"
    same = {"settings": settings, "threads": options.threads}
    return record.kept(
        place,
        options,
        lambda: _tuned(options, settings, rows, tokens, RATES.get(name)) | {"threads": options.threads},
        holds=lambda found: {key: found[key] for key in same} == same,
    )


def _tuned(
    options: Options, settings: Mapping[str, Any], rows: skill.Skill, tokens: int, rate: float | None
) -> dict[str, Any]:
    """One method from its first update to its last, with looks at held-out answers and general text."""
    from matura.core.peft_settings import Tuning, TuningOptimizer
    from matura.model import store
    from matura.model.allocator import keep_freed_memory
    from matura.model.peft import tuning
    from matura.model.peft.leaves import trained
    from matura.tokenizer import conversation
    from matura.train import objectives, optim, resume
    from matura.train.batches import PackedBatches, Rows
    from matura.train.examples import from_conversations
    from matura.train.loop import train

    keep_freed_memory()
    made = reference.find_model(options.model)
    format, chosen = conversation.load(made.path), Tuning.model_validate(settings)
    with resume.deterministic(options.seed):
        model = store.load(made.path)
        meters = _meters(options, rows, format, model)
        text = chosen.prefix.text
        tuning.apply(model, chosen, options.seed, format.tokenizer.encode(text) if text else ())
        learned = from_conversations(rows.train, format, LENGTH).examples
        batches = PackedBatches([Rows(learned, tokens=PER_STEP, seed=options.seed)])
        steps = max(1, round(tokens / batches.mean_tokens))
        settled = TuningOptimizer(lr=rate).of(chosen.method)
        optimizer, schedule = optim.build_optimizer(model, settled), optim.build_schedule(settled, steps)
        began, looks = time.perf_counter(), [_look(0, model, meters)]
        for step in train(
            model, batches, objectives.next_token, optimizer, schedule, steps=steps, clip=settled.clip
        ):
            if step.step % max(1, steps // LOOKS) == 0 or step.step == steps:
                looks.append(_look(step.step, model, meters))
    weights = trained(model) if chosen.method != "full" else dict(model.named_parameters())
    start = {name: meter.parent.bpb for name, meter in meters.items()}
    return {
        "settings": dict(settings),
        "lr": settled.lr,
        "steps": steps,
        "seconds": time.perf_counter() - began,
        "trained_share": sum(one.numel() for one in weights.values()) / made.summary["parameters"],
        "parent_bpb": start,
        "looks": [
            {**one, "gain": start["answers"] - one["answers"], "cost": one["general"] / start["general"] - 1}
            for one in looks
        ],
        "gain": start["answers"] - looks[-1]["answers"],
        "cost": looks[-1]["general"] / start["general"] - 1,
    }


def _meters(options: Options, rows: skill.Skill, format: Any, parent: Any) -> dict[str, Any]:
    """What held-out answers and general text cost, with the parent's own figures."""
    from matura.core import wheels
    from matura.core.raw import raw_input
    from matura.core.workspace import Workspace
    from matura.evaluate.general import control_texts
    from matura.train.examples import from_conversations
    from matura.train.material import spread
    from matura.train.meter import Meter, Text

    most = 512 if options.quick else LOOKED_AT
    wheel = raw_input(wheels.located(wheels.EXAMS, Workspace().downloads))
    texts = {
        "answers": from_conversations(rows.heldout, format, LENGTH).examples,
        "general": control_texts(wheel, format, LENGTH),
    }
    return {
        name: Meter(Text.of(spread(made, most), format.tokenizer), parent) for name, made in texts.items()
    }


def _look(step: int, model: Any, meters: Mapping[str, Any]) -> dict[str, Any]:
    return {"step": step, **{name: meter.read(model).bpb for name, meter in meters.items()}}


def _beside(one: Mapping[str, Any], full: Mapping[str, Any] | None) -> dict[str, Any]:
    """The gain as a share of full tuning's, and what both cost the rest at the same gain."""
    if full is None or full["gain"] <= 0:
        return {
            "share_of_full": None,
            "matched_gain": None,
            "matched_cost": None,
            "matched_cost_of_full": None,
        }
    gain = MATCHED * min(one["gain"], full["gain"])
    return {
        "share_of_full": one["gain"] / full["gain"],
        "matched_gain": gain,
        "matched_cost": cost_at(one["looks"], gain),
        "matched_cost_of_full": cost_at(full["looks"], gain),
    }


def cost_at(looks: Sequence[Mapping[str, float]], gain: float) -> float | None:
    """The change of general text where the gain was first reached, on the line between two looks; None if never."""
    for before, after in pairwise(looks):
        if before["gain"] < gain <= after["gain"]:
            way = (gain - before["gain"]) / (after["gain"] - before["gain"])
            return before["cost"] + way * (after["cost"] - before["cost"])
    return None


def _row(one: Mapping[str, Any]) -> list[Any]:
    numbers = [
        one["trained_share"],
        one["gain"],
        one["share_of_full"],
        one["cost"],
        one["matched_cost"],
        one["matched_cost_of_full"],
    ]
    return ["" if number is None else number for number in numbers]
