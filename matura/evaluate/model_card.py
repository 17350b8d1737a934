"""A model card in the Hugging Face form: YAML that the hub reads, then sections for people (Mitchell et al. 2019).

Everything in it comes from the lineage and from exams: nothing is claimed that was not recorded. What only a person can
say (for what the model is meant, under which licence) is asked for in so many words. Places on this machine are left
out; only the names of files and folders are told.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from matura.core import artifact as artifacts
from matura.core import lineage
from matura.core.artifact import Artifact
from matura.core.errors import ArtifactError
from matura.core.files import atomic_write, read_json
from matura.core.preferences import mean_rewards
from matura.evaluate import card_origin, card_usage, costs, history
from matura.evaluate.panels import page
from matura.model import store

FILE = "README.md"
MAX_RESULTS = 256 << 20
PLACES = re.compile(r"(?<![\w.:/])~?/(?:[^\s/|`]+/)+")
"""Folders of an absolute path on this machine; addresses on the web are none."""
TRAINED = ("pretrain", "finetune", "dpo", "ppo", "grpo")
FIGURES = 2
"""The first version of the stage `evaluate` whose results have figures of each task."""
SHORTEST = 1.0
"""Seconds of a stage whose cost is told."""
SHOWN = 40
"""Settings that are listed of one stage."""


def write(folder: Path, model: Artifact, weights: str, *, adapter: bool = False) -> None:
    """README.md for an exported model, with the exams of it (or of what it was merged from) in its workspace.

    `adapter`: the folder holds what was trained on a base, and not the base.
    """
    with atomic_write(folder / FILE) as temporary:
        made = list(around(model))
        sat, ranked = list(exams(model, made)), list(rankings(model, made))
        card = text(model, weights, sat, ranked, adapter=adapter)
        temporary.write_text(card, encoding="utf-8")


def exams(model: Artifact, made: Iterable[Artifact]) -> Iterator[Artifact]:
    """Those of `made` that are evaluations of the model, or of one that differs from it only by a merge."""
    same = _same(model)
    for found in made:
        known = found.kind == "evaluation" and found.record["stage_version"] >= FIGURES
        if known and found.inputs.get("model", {}).get("id") in same:
            yield found


def _same(model: Artifact) -> set[str]:
    """The ids of the model and of those it was merged from."""
    same = {model.id}
    while model.record["stage"] == "merge":
        model = model.input("model")
        same.add(model.id)
    return same


def around(model: Artifact) -> Iterator[Artifact]:
    """What the runs of its workspace have made, in the order of their places."""
    root = next((parent.parent for parent in model.path.parents if parent.name in ("runs", "models")), None)
    for record in sorted(root.glob("runs/*/*/artifact.json")) if root else ():
        with contextlib.suppress(ArtifactError):
            yield artifacts.load(record)


def rankings(model: Artifact, made: Iterable[Artifact]) -> Iterator[Artifact]:
    """Those of `made` where a stage `rank` compared answers of the model (or of one that a merge alone sets apart) with
    another's."""
    same = _same(model)
    for found in made:
        if found.kind == "preferences" and isinstance(found.summary.get("score"), Mapping):
            with contextlib.suppress(ArtifactError, KeyError):
                if found.input("samples").inputs["model"]["id"] in same:
                    yield found


def descent(model: Artifact) -> list[Artifact]:
    """The model and those that it was trained from, the oldest first, as far as they are still there. Others may have
    had a part (a teacher that wrote, a reward that judged), and are no base of it."""
    line = [model]
    with contextlib.suppress(ArtifactError):
        while "model" in line[-1].inputs:
            line.append(line[-1].input("model"))
    return line[::-1]


def text(
    model: Artifact,
    weights: str,
    sat: Sequence[Artifact],
    ranked: Sequence[Artifact] = (),
    *,
    adapter: bool = False,
) -> str:
    """The whole card; `sat` are the exams of the model, `ranked` the comparisons of its answers."""
    made, line = list(history.ancestors([model])), descent(model)
    origin = card_origin.origin(model, line)
    use = card_usage.usage(
        store.read_config(model.path), chat=_talks(model), adapter=adapter, base=_base(line)
    )
    results = [
        (one, read_json(one.file("results.json"), limit=MAX_RESULTS, what="results of an exam"))
        for one in sat
    ]
    told = f"{weights}, of the adapter alone" if adapter else weights
    parts = [
        _front(model, line, use, origin, [found for _, found in results]),
        f"# {_name(model)}\n\n{_summary(model, line)}",
        f"## Details\n\n{_details(model, line, told, origin.licence)}",
        "## Uses\n\nNot written yet: say for what it is meant, for whom, and for what it is not.",
        f"## Limits\n\n{_limits(results, ranked)}",
        f"## How to start\n\n```python\n{use.code}\n```",
        f"## Training data\n\n{_data(made, line, origin.data_sets)}",
        f"## Training\n\n{_training(line)}",
        f"## Evaluation\n\n{_evaluation(results, ranked)}",
        f"## What it took\n\n{_cost(made)}",
        f"## Where it comes from\n\n```\n{lineage.draw(_nameless(lineage.tree(model)))}\n```",
    ]
    return PLACES.sub("", "\n\n".join(parts)) + "\n"


def _name(model: Artifact) -> str:
    """Without the hash that a directory of a run ends in."""
    return lineage.name_of(model.path).rsplit("-", 1)[0] if _in_run(model) else lineage.name_of(model.path)


def _in_run(model: Artifact) -> bool:
    return model.path.parent.parent.name == "runs"


def _base(line: Sequence[Artifact]) -> str | None:
    """The model of the hub that the line begins with; None for one that was made or came from elsewhere."""
    first = str(line[0].config["reference"]) if line[0].record["stage"] == "pull" else ""
    return first.removeprefix("hf:").split("@")[0] if first.startswith("hf:") else None


def _front(
    model: Artifact,
    line: Sequence[Artifact],
    use: card_usage.Usage,
    origin: card_origin.Origin,
    results: Sequence[Mapping[str, Any]],
) -> str:
    """The YAML block: `base_model` only for a model that was pulled from the hub by name."""
    import yaml

    values: dict[str, Any] = {
        "library_name": use.library,
        "tags": list(dict.fromkeys(("matura", store.read_config(model.path).family))),
        "pipeline_tag": use.task,
        **origin.front(),
    }
    if (base := _base(line)) and len(line) > 1:
        relation = "adapter" if use.library == "peft" else "finetune"
        values |= {"base_model": base, "base_model_relation": relation}
    if results:
        values["model-index"] = [{"name": _name(model), "results": list(_index(results))}]
    return f"---\n{yaml.safe_dump(values, sort_keys=False, allow_unicode=True)}---"


def _index(results: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """The hub's model-index: a result for each task, with its metrics."""
    for found in results:
        rows = found["tasks"]["child"]
        for task in dict.fromkeys(row["task"] for row in rows):
            metrics = [
                {"type": row["metric"], "value": round(row["value"], 6), "name": row["metric"]}
                for row in rows
                if row["task"] == task
            ]
            kind, prompt = {"type": "text-generation"}, _prompt(found)
            name = f"{task} (with prompt {prompt['id'][:12]})" if prompt else task
            split = next((row["split"] for row in rows if row["task"] == task and row.get("split")), None)
            data = {"type": task, "name": name, **({"split": split} if split else {})}
            yield {"task": kind, "dataset": data, "metrics": metrics}


def _prompt(found: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What was put around the questions that the model was asked, as results tell it; None for nothing."""
    return found.get("prompts", {}).get("child")


def _summary(model: Artifact, line: Sequence[Artifact]) -> str:
    stages = [one.record["stage"] for one in line]
    return f"A language model made with Matura ({' → '.join(stages)}). {model.summary.get('line', '')}"


def _details(model: Artifact, line: Sequence[Artifact], weights: str, licence: card_origin.Licence) -> str:
    from matura.model.counting import count_parameters
    from matura.model.families import registry

    config = store.read_config(model.path)
    home = registry.home(config).family
    parameters, _ = count_parameters(config)
    origin = next(
        (one.summary.get("source_quantization") for one in line if one.summary.get("source_quantization")),
        None,
    )
    rows = [
        ("family", config.family if home == config.family else f"{config.family}, written here as {home}"),
        ("parameters", f"{parameters:,}"),
        ("context", f"{config.context:,} tokens"),
        ("vocabulary", f"{config.vocabulary:,}"),
        ("weights in this folder", weights),
        ("weights came from", f"a quantized file ({origin})" if origin else "full precision"),
        ("made with", str(model.record["code"].get("version", ""))),
        ("id", f"`{model.id}`"),
        ("licence", licence.told()),
    ]
    return "\n".join(f"- **{name}**: {value}" for name, value in rows)


def _limits(results: Sequence[tuple[Artifact, Mapping[str, Any]]], ranked: Sequence[Artifact]) -> str:
    """What is known to be wrong or unknown, from the records alone."""
    lines = [note for _, found in results for note in found["notes"]]
    lines += [reason for _, found in results for reason in found["gate"]["reasons"]]
    lines += [page.told(one) for _, found in results for one in found.get("panels", ())]
    if not results and not ranked:
        lines.append("It has sat no exam in the workspace it was exported from.")
    lines.append(
        "Bias, toxicity and truthfulness are known as far as the exams below ask for them, and no further."
    )
    return "\n".join(f"- {line}" for line in dict.fromkeys(lines))


def _talks(model: Artifact) -> bool:
    """Whether the model has a chat template."""
    from matura.tokenizer import conversation

    return conversation.load(model.path).template is not None


def _data(made: Sequence[Artifact], line: Sequence[Artifact], sets: Sequence[str]) -> str:
    found = [one for one in made if one.kind in ("corpus", "conversations", "tokens")]
    lines = [
        f"- **{one.kind}** {lineage.name_of(one.path)} (`{one.id[:12]}`): {one.summary.get('line', '')}"
        for one in found
    ]
    lines += [told for one in line if one.record["stage"] in TRAINED for told in _learned_files(one)]
    told = "\n".join(dict.fromkeys(lines)) or "None is recorded here: see the base model's own card."
    return f"{told}\n\nData sets of the hub: {', '.join(sets) or 'none is named in its lineage'}."


def _learned_files(model: Artifact) -> Iterator[str]:
    """A line for each of the files of one's own that a training read, of its record."""
    for name, entry in model.inputs.items():
        if entry["kind"] == "raw" and name.rpartition(".")[2] in card_origin.LEARNED:
            called = lineage.fetched(model, name) or PurePath(entry["path"]).name
            count = f", {entry['count']:,} files" if entry["count"] > 1 else ""
            yield f"- **files** {called} (`{entry['id'][:12]}`): {entry['bytes']:,} bytes{count}"


def _training(line: Sequence[Artifact]) -> str:
    parts = []
    for one in line:
        if one.record["stage"] in TRAINED:
            settings = [(name, value) for name, value in _flat(one.config) if "path" not in name][:SHOWN]
            rows = "\n".join(f"| `{name}` | {value} |" for name, value in settings)
            told = one.summary.get("line", "")
            parts.append(f"{one.record['stage']}: {told}\n\n| setting | value |\n|---|---|\n{rows}")
    return "\n\n".join(parts) or "No training of its own is recorded here."


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Settings as (a.b, text); references to files are told by their names alone."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        elif value not in (None, "", [], ()):
            told = PurePath(value).name if isinstance(value, str) and "/" in value else str(value)
            yield f"{prefix}{key}", told.replace("|", "\\|")


def _evaluation(results: Sequence[tuple[Artifact, Mapping[str, Any]]], ranked: Sequence[Artifact]) -> str:
    parts = [_answers(one) for one in ranked]
    for one, found in results:
        rows = [
            "| task | metric | figure | 95% interval | guessing | items | shots |",
            "|---|---|---|---|---|---|---|",
        ]
        for row in found["tasks"]["child"]:
            chance = "" if row["chance"] is None else f"{row['chance']:.3f}"
            interval = f"{row['low']:.4f} … {row['high']:.4f}"
            cells = [
                row["task"],
                row["metric"],
                f"{row['value']:.4f}",
                interval,
                chance,
                row["items"],
                row["shots"],
            ]
            rows.append("| " + " | ".join(map(str, cells)) + " |")
        verdict = ""
        if found["metrics"]:
            passed = "passed" if found["gate"]["passed"] else "did not pass"
            verdict = f"Against its parent: {passed}. {found['line']}\n\n"
        asked = f"Exam `{one.id[:12]}`, {_asked_with(_prompt(found))}"
        parts.append(f"{verdict}{chr(10).join(rows)}\n\n{asked}")
    return "\n\n".join(parts) or "Not examined."


def _answers(one: Artifact) -> str:
    """What its answers to held-out prompts were worth, beside those of the model before."""
    score = one.summary["score"]
    passed = (one.summary.get("gate") or {}).get("passed")
    gate = "" if passed is None else "passed. " if passed else "did not pass. "
    rows = ["| reward | mean of its answers |", "|---|---|"]
    rows += [f"| {name} | {value:.4f} |" for name, value in mean_rewards(one.summary).items()]
    return (
        f"Its answers to {score['items']:,} held-out prompts: {gate}{score['parent']:.4f} -> {score['child']:.4f}, "
        f"{score['verdict']} ({score['low']:+.4f} … {score['high']:+.4f}, {score['level']:.0%} interval).\n\n"
        f"{chr(10).join(rows)}\n\nJudged in `{one.id[:12]}`."
    )


def _asked_with(prompt: Mapping[str, Any] | None) -> str:
    """How the figures of an exam came about, for whoever compares them with others."""
    if prompt is None:
        return "asked without a prompt."
    system = f"the system text {_quoted(prompt['system'])}" if prompt["system"] else "no system text"
    shown = f"{prompt['examples']} examples ({prompt['choose']})" if prompt["examples"] else "no examples"
    return (
        f"asked with the prompt `{prompt['id'][:12]}` around every question: {system}, the template "
        f"{_quoted(prompt['template'])}, {shown} beside the shots of the table. Figures without it do not compare."
    )


def _quoted(text: str) -> str:
    """A text of a prompt within a line of Markdown."""
    return f"`{' '.join(text.split()).replace('`', chr(39))[:200]}`"


def _cost(made: Sequence[Artifact]) -> str:
    known = [costs.of(one) for one in made]
    table = costs.table([one for one in known if one.seconds >= SHORTEST])
    rows = [table["heads"], ["---"] * len(table["heads"]), *table["rows"]]
    machine = made[-1].record["environment"].get("cpu", "") or "the machine it was made on"
    return "\n".join([f"On {machine}:", "", *(f"| {' | '.join(row)} |" for row in rows), "", costs.NOTE])


def _nameless(node: lineage.Node) -> lineage.Node:
    """A lineage without the places of this machine."""
    place = node["kind"] == "raw" and node["name"] == node["path"]  # what was fetched has a name of its own
    name = PurePath(node["name"]).name if place else node["name"]
    inputs = {key: _nameless(one) for key, one in node["inputs"].items()}
    return {**node, "name": name, "path": name, "inputs": inputs}
