"""What each stage of recipes/life.yaml is worth: the life itself, and the same life with one stage left out or spoiled.

The life is run first, or reused where the workspace has it. Then come branches of it in the same run, whose own stages
end in `_NAME`; all else is the life's, not made again. (`matura run recipes/life.yaml` leaves the life alone there.)

- `no_dedup`: copies stay in the corpus; tokenizer, base, lessons, preferences and all are made again from it
- `no_pretraining`: taught from the first weights
- `no_sft`: aligned from the base, by the preferences as they are
- `no_alignment`: as it was taught
- `mixed_lessons`: taught every question with the answer to another one
- `by_lot`: aligned by the same preferences, dealt to the answers of each prompt by lot
- `mixed_text`: pre-trained on documents whose words are mixed, with the life's tokenizer; it only reads

All are asked the same held-out questions, judged by the same rule, and read the same held-out documents. A difference
is that of the gates (`evaluate/gates.py`): of the same prompts, with a bootstrap interval of 95% and the gate's margin.

Leaks of `no_dedup`: its corpus would hold out other documents, so the files that the life has held out are left out of
it by name, and a tenth as many others are held out. Copies of them under other names stay in, for that is what it
means not to look for copies. How many held-out documents have a (near) copy in the text to learn from is told; and the
difference is given a second time on the questions whose document has none, and that were not learned or practised.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks import life_branches, life_controls, life_texts, record, staging
from benchmarks.life_branches import Stages
from benchmarks.options import Options
from matura.align import judging
from matura.core.artifact import Artifact
from matura.core.corpus_settings import Engine, Fuzzy
from matura.core.errors import GateFailed
from matura.core.preferences import HELDOUT, Ranking, mean_rewards, read_rankings
from matura.core.records import read_conversations, read_documents
from matura.core.rounds import merged
from matura.core.run import Event
from matura.core.workspace import Workspace
from matura.data import dedup
from matura.stages.rank import Gate

RECIPE = Path(__file__).parents[1] / "recipes" / "life.yaml"
CHAIN = {"base": "untrained", "taught": "base", "aligned": "taught"}
"""Stage of the life -> the one before."""
MARGIN = Gate().margin
Made = Mapping[str, Artifact]


def run(options: Options) -> bool:
    """Run all, print the tables, save; whether all is as one would expect."""
    torch.set_num_threads(options.threads)
    with _settled(options) as (name, stages, workspace):
        passed, stages, made = _life(name, stages, workspace)
        controls = workspace.root / "controls" / name
        life_controls.write(made, controls, options.seed)
        heldout = tuple(
            sorted({one.source for one in read_documents(made["corpus"].file("heldout.parquet"))})
        )
        branches = life_branches.branches(stages, controls, heldout)
        own = {key: one for branch in branches for key, one in life_branches.again(stages, branch).items()}
        asked = {
            **{key: (key, parent) for key, parent in CHAIN.items()},
            **{one.name: (one.model, one.beside) for one in branches},
        }
        made = staging.recipe(name, {**stages, **own, **_exams(stages, asked)}, workspace, _tell)
        rows = {label: _row(made, label, *two) for label, two in asked.items()}
        rows["by_lot"]["over_none"] = _difference(
            _rankings(made, "taught"), _rankings(made, "aligned_by_lot")
        )
        leaks = _leaks(made, stages)
    expected = {"the life's own gates pass": passed, **_expected(rows, leaks)}
    _show(rows, leaks)
    record.table(["as one would expect", "holds"], [[text, holds] for text, holds in expected.items()])
    record.save("life", options, {"run": name, "rows": rows, "leaks": leaks, "expected": expected})
    return all(expected.values()) or options.quick


@contextlib.contextmanager
def _settled(options: Options) -> Iterator[tuple[str, Stages, Workspace]]:
    """Name of the run, its stages, and the workspace: the usual one, or one for a moment where it is only tried."""
    name, stages = staging.as_run(RECIPE, options.overrides)
    if not options.quick:
        yield name, stages, Workspace(options.workspace)
        return
    with tempfile.TemporaryDirectory(prefix="matura-life-") as folder:
        documents = Path(folder, "documents")
        life_texts.write(documents)
        needed = set().union(*(life_branches.before(stages, one) for one in (*_judged(CHAIN), "read")))
        stages = {key: one for key, one in stages.items() if key in needed}
        changes = {key: one for key, one in life_texts.SETTINGS.items() if key in stages}
        changes["corpus"] = {**changes["corpus"], "path": str(documents)}
        yield name, merged(stages, changes), Workspace(Path(folder, "workspace"))


def _life(name: str, stages: Stages, workspace: Workspace) -> tuple[bool, Stages, Made]:
    """Whether the life passes its gates, its stages, and what they made. Where a gate does not pass it is told, and the
    exams are held again without gates: models are not made again."""
    try:
        return True, stages, staging.recipe(name, stages, workspace, _tell)
    except GateFailed as failed:
        print(f"{failed}\nOn without gates, to see what comes of it.\n", flush=True)
    stages = {key: _without_gate(one) for key, one in stages.items()}
    return False, stages, staging.recipe(name, stages, workspace, _tell)


def _without_gate(stage: Any) -> Any:
    if stage["stage"] == "evaluate" and "parent" in stage:
        return {**stage, "gates": []}
    if stage["stage"] == "rank" and "gate" in stage:
        above = stage.get("keep", {}).get("above_previous", False)
        return {key: one for key, one in stage.items() if key != "gate" and (above or key != "previous")}
    return stage


def _tell(event: Event) -> None:
    if event.made is not None and event.status != "reused":
        print(f"  {event.stage} ({event.seconds:.0f} s): {event.detail}", flush=True)


def _judged(models: Mapping[str, str]) -> list[str]:
    return [f"judged_{model}" for model in models]


def _exams(stages: Stages, asked: Mapping[str, tuple[str, str]]) -> Stages:
    """The exams of all rows (label -> model, the one beside it), as the life holds them and without gates. Who read
    mixed text alone is asked nothing: it stands beside a base that was not taught to answer either."""
    made: Stages = {}
    tried = stages["tried_aligned"]
    judged = _without_gate(stages["judged_aligned"])
    judged.pop("previous", None)
    for label, (model, beside) in asked.items():
        read = {"model": f"${model}", "parent": f"${beside}", "gates": []}
        made[f"bits_{label}"] = {
            key: one for key, one in {**stages["read"], **read}.items() if key != "after"
        }
        if f"judged_{model}" not in stages and label != "mixed_text":
            made[f"tried_{model}"] = {**tried, "model": f"${model}"}
            made[f"judged_{model}"] = {**judged, "samples": f"$tried_{model}"}
    return made


def _row(made: Made, label: str, model: str, beside: str) -> dict[str, Any]:
    """The figures of a model, and how it differs from the one beside it and from the whole life."""
    metrics = staging.results(made[f"bits_{label}"])["metrics"]
    bits = next(one for one in metrics if one["name"] == "domain.bpb")
    row: dict[str, Any] = {"model": model, "beside": beside, "bpb": bits["child"], "bits": _told(bits)}
    if f"judged_{model}" in made:
        means = mean_rewards(made[f"judged_{model}"].summary)
        row |= {key: means[key] for key in ("command", "same_command")}
        now = _rankings(made, model)
        row["whole"] = _difference(_rankings(made, "aligned"), now)
        if f"judged_{beside}" in made:
            row["answers"] = _difference(_rankings(made, beside), now)
            gated = made[f"judged_{model}"]
            if gated.summary.get("score") and gated.input("previous").id == made[f"judged_{beside}"].id:
                row["answers"] = _told(gated.summary["score"])
    return row


def _rankings(made: Made, model: str) -> list[Ranking]:
    return list(read_rankings(made[f"judged_{model}"].file(HELDOUT)))


def _difference(before: Sequence[Ranking], now: Sequence[Ranking]) -> dict[str, Any]:
    judged, _ = judging.compare(before, now, fail_on="regressed", margin=MARGIN, seed=0)
    return _told(judged.as_dict())


def _told(judged: Mapping[str, Any]) -> dict[str, Any]:
    return {key: judged[key] for key in ("parent", "child", "gain", "low", "high", "verdict", "items")}


def _leaks(made: Made, stages: Stages) -> dict[str, Any]:
    """Held-out documents with a copy in the text to learn from, with and without the search for copies; and the
    difference of `no_dedup` on the questions that did not leak."""
    found = {name: _copies(made["corpus"], made[name], stages) for name in ("corpus", "corpus_no_dedup")}
    known = {
        str(row.messages[0]["content"])
        for stage in ("lessons_no_dedup", "questions_no_dedup")
        for row in read_conversations(made[stage].file("train.jsonl"))
    }
    before, now = (_rankings(made, name) for name in ("aligned", "aligned_no_dedup"))
    copied = found["corpus_no_dedup"]
    fresh = {
        row.id
        for row in now
        if row.id.rpartition("/")[0] not in copied and str(row.messages[-1]["content"]) not in known
    }
    documents = sum(1 for _ in read_documents(made["corpus"].file("heldout.parquet")))
    told: dict[str, Any] = {
        "heldout_documents": documents,
        "with_a_copy": {"whole": len(found["corpus"]), "no_dedup": len(copied)},
        "questions": len(now),
        "questions_without_leak": len(fresh),
    }
    if fresh:
        told["no_dedup_without_leak"] = _difference(before, [row for row in now if row.id in fresh])
    return told


def _copies(life: Artifact, other: Artifact, stages: Stages) -> set[str]:
    """The documents that the life has held out and that another corpus has, nearly, to learn from."""
    fuzzy = Fuzzy(**{**stages["corpus"].get("fuzzy", {}), "use": "on"})
    with tempfile.TemporaryDirectory() as folder:
        found = dedup.find(
            [life.file("heldout.parquet")],
            exact=True,
            fuzzy=fuzzy,
            against=other.file("train.parquet"),
            folder=Path(folder),
            engine=Engine(workers=1),
        )
    return {id for id, pair in found.drop.items() if pair.reference}


def _expected(rows: Mapping[str, dict[str, Any]], leaks: Mapping[str, Any]) -> dict[str, bool]:
    """What one would expect. Worse or better: the interval of the difference is on that side of zero."""
    gain = {name: row["answers"] for name, row in rows.items() if "answers" in row}
    fresh = leaks.get("no_dedup_without_leak")
    return {
        "pre-training reads better than first weights": rows["base"]["bits"]["low"] > 0,
        "lessons answer better than pre-training alone": gain["taught"]["low"] > 0,
        "alignment answers better than lessons alone": gain["aligned"]["low"] > 0,
        "mixed text reads worse than text": rows["mixed_text"]["bits"]["high"] < 0,
        "mixed lessons answer worse than lessons": gain["mixed_lessons"]["high"] < 0,
        "preferences by lot answer worse than preferences": gain["by_lot"]["high"] < 0,
        "preferences by lot answer no better than none": rows["by_lot"]["over_none"]["low"] <= 0,
        "without alignment it answers worse": gain["no_alignment"]["high"] < 0,
        "without lessons it answers worse": gain["no_sft"]["high"] < 0,
        "lessons are worth more than alignment": gain["no_sft"]["gain"] < gain["no_alignment"]["gain"],
        "without pre-training it answers worse": gain["no_pretraining"]["high"] < 0,
        "without the search for copies more held-out documents leak": leaks["with_a_copy"]["whole"]
        < leaks["with_a_copy"]["no_dedup"],
        "without the search for copies it answers no better, leaks aside": fresh is not None
        and fresh["low"] <= 0,
        "the end still reads better than first weights": rows["aligned"]["bpb"]
        < rows["base"]["bits"]["parent"],
    }


def _show(rows: Mapping[str, dict[str, Any]], leaks: Mapping[str, Any]) -> None:
    """The table of answers and of reading, and what leaked."""
    columns = [
        "life",
        "beside",
        "command",
        "same",
        "difference",
        "verdict",
        "to the whole",
        "bits/byte",
        "gain",
        "read",
    ]
    lines = []
    for name, row in rows.items():
        answers = row.get("answers")
        lines.append(
            [
                *(name, row["beside"]),
                *(f"{row[key]:.3f}" if key in row else "" for key in ("command", "same_command")),
                *(_interval(answers), answers["verdict"] if answers else "", _interval(row.get("whole"))),
                *(f"{row['bpb']:.3f}", _interval(row["bits"]), row["bits"]["verdict"]),
            ]
        )
    record.table(columns, lines)
    copies, fresh = leaks["with_a_copy"], leaks.get("no_dedup_without_leak")
    print(
        f"\nOf {leaks['heldout_documents']} held-out documents {copies['whole']} have a copy in the life's text to "
        f"learn from, {copies['no_dedup']} without the search for copies. no_dedup on the "
        f"{leaks['questions_without_leak']} of {leaks['questions']} questions that did not leak: {_interval(fresh)}\n",
        flush=True,
    )


def _interval(told: Mapping[str, Any] | None) -> str:
    return f"{told['gain']:+.3f} [{told['low']:+.3f}, {told['high']:+.3f}]" if told else ""
