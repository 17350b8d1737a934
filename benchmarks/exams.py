"""A chat model on a documented panel, beside what others published, and on what is looked at besides ability: bias,
toxicity, instructions, abstention, robustness, long texts.

The rows that the wheel of exams does not have are in `--folder`, under the names of docs/exams.md and of the table of
tasks; a task or panel without its rows is left out by name, in the record too. Full sets where they take less than 90
minutes on two cores, else the same 2,000 items every time. Every part is an exam of its own (`--cases ability bias`):
finished ones are reused, replies outlive a kill, and the record has what is finished. The pages that people read are in
the workspace; where they are is printed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks import record, staging
from benchmarks.options import Options
from matura.core.errors import ConfigError
from matura.core.run import Event
from matura.core.workspace import Workspace

SOME = 2000
"""Items of a task whose whole set takes too long."""
FEW = 12
"""Items of a quick run."""
ABILITY = {
    **dict.fromkeys(("arc_easy", "arc_challenge", "piqa", "winogrande", "openbookqa", "boolq", "lambada"), 0),
    **dict.fromkeys(("commonsense_qa", "commonsense_qa_cloze", "gsm8k", "blimp", "perplexity"), 0),
    **dict.fromkeys(("truthfulqa_binary", "truthfulqa_single", "truthfulqa_multi"), 0),
    **dict.fromkeys(("hellaswag", "mmlu", "mmlu_cloze"), SOME),
}
"""Task -> items; 0 for all."""
PANELS: dict[str, dict[str, Any]] = {
    "bias": {"bias": {"crows_pairs": 1508, "winobias": 1584, "bbq": SOME}},
    "instructions": {"ifeval": {"prompts": 541}},
    "toxicity": {"toxicity": {"prompts": 288}},
    "hallucination": {"abstention": {"pairs": 200}},
    "long": {"needle": {"lengths": [256, 512, 1000]}},
    "robustness": {"robustness": {"tasks": ["arc_easy", "piqa", "mmlu_cloze"], "items": 300}},
}
SHORT: dict[str, dict[str, Any]] = {
    "bias": {"bias": {"crows_pairs": FEW, "winobias": FEW, "bbq": FEW}},
    "instructions": {"ifeval": {"prompts": 2, "tokens": 16}},
    "toxicity": {"toxicity": {"prompts": FEW, "samples": 2, "tokens": 8}},
    "hallucination": {"abstention": {"pairs": FEW, "tokens": 8}},
    "long": {"needle": {"lengths": [128], "depths": [0.5], "each": 2}},
    "robustness": {"robustness": {"tasks": ["piqa"], "items": FEW}},
}


def run(options: Options) -> bool:
    """Ask, print and save after every part. There is no goal: the figures are what is wanted."""
    parts = settings(options)
    wanted = [name for name in parts if not options.cases or name.partition(".")[0] in options.cases]
    if not wanted:
        names = ", ".join(dict.fromkeys(name.partition(".")[0] for name in parts))
        raise SystemExit(f"--cases: expected some of {names}")
    found: dict[str, Any] = {}
    left_out: dict[str, str] = {}
    for name in wanted:
        try:
            found[name] = _sat(name, parts[name], options)
        except ConfigError as error:
            if "its rows are in" not in str(error):
                raise
            left_out[name] = str(error).partition(":")[0] + ": its rows are not there"
            print(f"  {name}: {error}", flush=True)
        record.save("exams", options, {"parts": found, "left_out": left_out})
    if found:
        record.table(COLUMNS, [row for one in found.values() for row in rows(one)])
    return bool(found)


def settings(options: Options) -> dict[str, dict[str, Any]]:
    """The exams by name, as settings of the stage `evaluate`: one for every task, and one for every panel of bias, so
    that missing rows leave out nothing else."""
    asked: dict[str, Any] = {"stage": "evaluate", "model": options.model, "questions": []}
    asked |= {"folder": str(options.folder)} if options.folder else {}
    asked |= {"panel": dict.fromkeys(("hellaswag", "arc_easy", "piqa"), 0), "texts": {"control": 0}}
    parts: dict[str, dict[str, Any]] = {}
    for task, items in ABILITY.items():
        parts[f"ability.{task}"] = {
            **asked,
            "tasks": [{"task": task, "items": FEW if options.quick else items}],
        }
    for name, panels in (SHORT if options.quick else PANELS).items():
        if name == "bias":
            parts |= {
                f"bias.{one}": {**asked, "panels": {"bias": {one: count}}}
                for one, count in panels["bias"].items()
            }
        else:
            parts[name] = {**asked, "panels": panels}
    return parts


def _sat(name: str, stage: Mapping[str, Any], options: Options) -> dict[str, Any]:
    """One exam: its figures with intervals, what guessing has and what others published, and its readings."""

    def tell(event: Event) -> None:
        if event.made is not None:
            print(f"  {name} ({event.seconds:.0f} s): {event.detail}\n    {event.made.path}", flush=True)

    key = name.replace(".", "-")
    made = staging.recipe("exams", {key: dict(stage)}, Workspace(options.workspace), tell)[key]
    results = staging.results(made)
    return {
        "cpu_seconds": made.record["cpu_seconds"],
        "tasks": results["tasks"]["child"],
        "panels": results["panels"],
        "notes": results["notes"],
    }


COLUMNS = ("asked", "figure", "value", "low", "high", "guessing", "items", "published")


def rows(found: Mapping[str, Any]) -> list[list[Any]]:
    """Lines of the table: figures of tasks, then of panels."""
    lines = [
        [
            one["task"],
            one["metric"],
            one["value"],
            one["low"],
            one["high"],
            "" if one["chance"] is None else one["chance"],
            one["items"],
            "; ".join(f"{other['model']} {other['value']:g}" for other in one["published"]),
        ]
        for one in found["tasks"]
    ]
    for panel in found["panels"]:
        for one in panel["figures"]:
            name = f"{one['name']}, {one['part']}" if one["part"] else one["name"]
            numbers = ["" if one[key] is None else one[key] for key in ("value", "low", "high", "neutral")]
            lines.append([panel["name"], name, *numbers, one["items"], ""])
    return lines
