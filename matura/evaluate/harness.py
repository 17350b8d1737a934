"""Results in the shape in which lm-evaluation-harness writes its own, so that its readers read ours."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matura.core.files import canonical_hash
from matura.evaluate import grading
from matura.evaluate.asking import Answers, Reply, Roll, Score, Scored, Turns, Write
from matura.evaluate.score import Bits
from matura.evaluate.sitting import Replies, Section

OUTPUT_TYPES = {
    "choices": "multiple_choice",
    "continuation": "loglikelihood",
    "text": "loglikelihood_rolling",
    "writing": "generate_until",
}
NAMES = {"bpb": "bits_per_byte"}
"""Our name of a metric -> theirs, where they differ."""


def results(
    sections: Sequence[Section], figures: Sequence[Mapping[str, Any]], config: Mapping[str, Any]
) -> dict[str, Any]:
    """`results`, `configs`, `versions`, `n-shot`, `higher_is_better` and `n-samples` of one model; what a prompt puts
    around a task stands in its config (`prompt`), counts in its version and shots, and gives `system_instruction`.

    `figures` are `exam.standings` of it, `config` is what is told of model and settings.
    """
    rows: dict[str, dict[str, Any]] = {one.name: {"alias": one.name} for one in sections}
    better: dict[str, dict[str, bool]] = {one.name: {} for one in sections}
    for figure in figures:
        name, filtered = _names(figure["metric"])
        rows[figure["task"]][f"{name},{filtered}"] = figure["value"]
        error = figure["stderr"]
        rows[figure["task"]][f"{name}_stderr,{filtered}"] = "N/A" if error is None else error
        better[figure["task"]][name] = figure["better"] == "higher"
    return {
        "results": rows,
        "group_subtasks": {one.name: [] for one in sections},
        "configs": {one.name: _config(one) for one in sections},
        "versions": {one.name: _version(one) for one in sections},
        "n-shot": {one.name: one.task.shots.count + _examples(one) for one in sections},
        "higher_is_better": better,
        "n-samples": {
            one.name: {"original": len(one.items), "effective": len(one.items)} for one in sections
        },
        "config": dict(config),
        "system_instruction": next((one.prompt.system for one in sections if one.prompt), "") or None,
    }


def _version(section: Section) -> str:
    """Of the task and, where there is one, of the prompt: figures of other versions do not compare."""
    version = "matura-" + canonical_hash(section.task.model_dump())[:12]
    return f"{version}+prompt-{section.prompt.version}" if section.prompt else version


def _examples(section: Section) -> int:
    return section.prompt.settings.examples.count if section.prompt else 0


def _names(metric: str) -> tuple[str, str]:
    """Their metric, and their name of the way the answer was found."""
    name, _, way = metric.partition(".")
    return NAMES.get(name, name), way or "none"


def _config(section: Section) -> dict[str, Any]:
    task = section.task
    return {
        "task": section.name,
        "dataset_path": task.source or task.data[0],
        **({f"{task.split}_split": task.split} if task.split in ("test", "validation") else {}),
        "output_type": OUTPUT_TYPES[task.kind],
        "doc_to_text": task.prompt,
        "doc_to_target": task.answer,
        "doc_to_choice": task.choices,
        "description": task.description,
        "target_delimiter": task.delimiter,
        "fewshot_delimiter": task.separator,
        "num_fewshot": task.shots.count,
        "metric_list": [
            {"metric": NAMES.get(one.name, one.name), "higher_is_better": one.better == "higher"}
            for one in grading.metrics(task)
        ],
        "generation_kwargs": {"until": list(task.until), "max_gen_toks": task.max_tokens}
        if task.kind == "writing"
        else {},
        "prompt": {**section.prompt.told(), "chat": section.chat} if section.prompt else None,
    }


def samples(section: Section, replies: Replies) -> Iterator[dict[str, Any]]:
    """A row for each item with everything that was asked and answered: texts of the test are in it."""
    known = grading.metrics(section.task)
    for number, (item, found) in enumerate(zip(section.items, replies, strict=True)):
        asked = [_arguments(one) for one in section.requests(number, number + 1)[0]]
        marks = {one.name: one.mark(section.task, item, found).value for one in known}
        target = item.choices[item.gold] if item.choices else item.context
        yield {
            "doc_id": number,
            "doc": {"id": item.id, "group": item.group, "choices": list(item.choices), "gold": item.gold},
            "target": target,
            "arguments": asked,
            "resps": [[_response(one)] for one in found],
            "filter": "none",
            "metrics": list(marks),
            "doc_hash": canonical_hash([item.context, list(item.choices)]),
            "prompt_hash": canonical_hash(asked),
            "target_hash": canonical_hash(target),
            **marks,
        }


def _arguments(request: Any) -> list[Any]:
    match request:
        case Score(context, continuation):
            return [_shown(context), continuation]
        case Roll(text):
            return [text]
        case Write(prompt, until, most):
            return [_shown(prompt), {"until": list(until), "max_gen_toks": most}]
        case Answers(row):
            return [list(row.messages)]
    raise TypeError(f"no request: {request!r}")


def _shown(asked: str | Turns) -> Any:
    """A text, or the messages of a conversation."""
    if isinstance(asked, str):
        return asked
    return [{"role": role, "content": content} for role, content in asked.messages]


def _response(reply: Reply) -> Any:
    match reply:
        case Scored(logprob, greedy, _, _):
            return [logprob, greedy]
        case Bits(bits, _, _):
            return [bits]
        case text:
            return text
