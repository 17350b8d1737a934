"""The exports of recipes/life.yaml where others open them: transformers reads the Hugging Face folder, llama.cpp the
GGUF file. Both are asked held-out questions; the ids of a question, and every id of the likeliest answer, are to be
Matura's.

The control is the model before alignment, asked the same: where it gave the same answers too, nothing would be shown.
Where two tokens are as likely within `TIE` nats, either is right. `--workspace` names one in which the life was run.
"""

from __future__ import annotations

import importlib.metadata
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks import gguf, life, record, staging
from benchmarks.options import Options
from matura.core.errors import ModelNotFound
from matura.core.records import read_conversations
from matura.core.workspace import Workspace

NEW, CONTEXT = 96, 256
TIE = gguf.EXACT
Answers = list[list[int]]


def run(options: Options) -> bool:
    """Ask all, print, save; whether everyone reads and answers alike, and the control does not."""
    import torch

    from matura.model import store
    from matura.tokenizer import conversation

    torch.set_num_threads(options.threads)
    name, _ = staging.as_run(life.RECIPE, options.overrides)
    workspace = Workspace(options.workspace)
    made = {
        stage: workspace.find(f"{name}/{stage}")
        for stage in ("questions", "taught", "aligned", "assistant", "gguf")
    }
    rows = read_conversations(made["questions"].file("heldout.jsonl"))
    asked = [list(row.messages[:1]) for row in itertools.islice(rows, options.default(options.pairs, 200, 5))]
    if not asked:
        raise ModelNotFound(f"{made['questions'].path} holds out no question")
    format = conversation.load(made["aligned"].path)
    prompts = [format.prompt(messages) for messages in asked]
    models = {stage: store.load(made[stage].path).eval() for stage in ("aligned", "taught")}
    stops = format.stop_ids
    ours, control = (_ours(models[stage], prompts, stops) for stage in ("aligned", "taught"))
    theirs = {
        "transformers": _transformers(made["assistant"].path / "hf", asked, prompts, stops),
        "llama.cpp": _llama_cpp(made["gguf"].path / "model.gguf", asked[0], prompts, stops, options.threads),
    }
    found = {
        reader: _compare(models["aligned"], prompts, ours, answers, stops[0]) | {"same_ids": same_ids}
        for reader, (same_ids, answers) in theirs.items()
    }
    found["before alignment (control)"] = _compare(models["aligned"], prompts, ours, control, stops[0])
    columns = ("answers", "equal", "at_a_tie", "other", "stopped", "same_ids")
    record.table(
        ["reader", *columns], [[who, *(one.get(key, "") for key in columns)] for who, one in found.items()]
    )
    checks = {
        f"{who} reads and answers as we do": one["same_ids"] and not one["other"]
        for who, one in found.items()
        if who in theirs
    }
    checks["the model before alignment answers otherwise"] = found["before alignment (control)"]["other"] > 0
    versions = {package: importlib.metadata.version(package) for package in ("transformers", "xllamacpp")}
    figures = {"run": name, "model": made["aligned"].id, "readers": found, "versions": versions}
    record.save("life_exports", options, {**figures, "checks": checks})
    return all(checks.values())


def _ours(model: Any, prompts: Answers, stops: Sequence[int]) -> Answers:
    from matura.core.settings import Sampling
    from matura.infer import engine

    return engine.generate(model, prompts, Sampling(max_new_tokens=NEW, temperature=0), stops)


def _transformers(
    folder: Path, asked: list[Any], prompts: Answers, stops: Sequence[int]
) -> tuple[bool, Answers]:
    """Whether it renders the questions as we do, and its answers without their stop token."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    rendered = [
        tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
        for messages in asked
    ]
    answers = []
    for ids in rendered:
        ids_1T = torch.tensor([ids])
        made_1T = model.generate(
            ids_1T,
            attention_mask=torch.ones_like(ids_1T),
            max_new_tokens=NEW,
            do_sample=False,
            temperature=None,
        )
        answers.append(_without(made_1T[0, len(ids) :].tolist(), stops))
    return rendered == prompts, answers


def _llama_cpp(
    file: Path, first: list[Any], prompts: Answers, stops: Sequence[int], threads: int
) -> tuple[bool, Answers]:
    """The same of llama.cpp, which renders the first question alone, by its own engine of templates."""
    found = gguf.judge(file, threads, context=CONTEXT, texts=[], messages=first, prompts=prompts, new=NEW)
    return found["chat"] == prompts[0], [_without(one["ids"], stops) for one in found["answers"]]


def _without(ids: list[int], stops: Sequence[int]) -> list[int]:
    return list(itertools.takewhile(lambda id: id not in stops, ids))


def _compare(model: Any, prompts: Answers, ours: Answers, theirs: Answers, stop: int) -> dict[str, int]:
    """How many answers are equal; how many leave ours where our model has a tie; and others."""
    ties = others = 0
    for prompt, mine, made in zip(prompts, ours, theirs, strict=True):
        if mine != made:
            tie = _gap(model, prompt, [*mine, stop], [*made, stop]) < TIE
            ties, others = ties + tie, others + (not tie)
    stopped = sum(len(one) < NEW for one in theirs)
    return {
        "answers": len(prompts),
        "equal": len(prompts) - ties - others,
        "at_a_tie": ties,
        "other": others,
        "stopped": stopped,
    }


def _gap(model: Any, prompt: list[int], mine: list[int], made: list[int]) -> float:
    """Nats by which our model prefers its own token where the answers part."""
    import torch

    parted = next(i for i, (a, b) in enumerate(zip(mine, made, strict=False)) if a != b)
    with torch.inference_mode():
        hidden_1TD = model.decode(torch.tensor([[*prompt, *mine[:parted]]]))
        logprobs_V = model.logits(hidden_1TD[0, -1]).log_softmax(-1)
    return float(logprobs_V[mine[parted]] - logprobs_V[made[parted]])
