"""Recipes as they are shipped, run to their ends, and asked whether they do what their first lines say.

`encoder`: the model fills masks in held-out documents, beside the most frequent token and beside a trigram model of the
text it learned from (see `objectives`). `translate`: held-out numbers to words and back, exactly; control: the first
weights of the same model. Of the others (`--cases NAME`: dpo, pretrain, raft ...) the gates are the question. Finished
stages are reused, in the usual workspace or that of `--workspace`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import objectives, record, staging
from benchmarks.options import Options
from matura.core.artifact import Artifact
from matura.core.errors import GateFailed
from matura.core.files import read_json
from matura.core.records import read_conversations
from matura.core.run import Event
from matura.core.workspace import Workspace
from matura.data import shards
from matura.model import store
from matura.model.initialize import initialize
from matura.model.transformer import Transformer
from matura.stages import evaluate
from matura.tokenizer import tokenizer as tokenizers
from matura.train.corrupt import masking

FOLDER = Path(__file__).parents[1] / "recipes"
MOST = 64 << 20
"""Bytes of what an exam found."""
SHORT = {
    "encoder": ("corpus.heldout=20", "tokenizer.vocabulary=512", "model.sizes.tokens=40K"),
    "translate": ("pairs.count=400", "pairs.heldout=20", "model.sizes.tokens=40K"),
}
"""What a quick run changes."""
Made = Mapping[str, Artifact]
Judged = tuple[dict[str, Any], dict[str, bool]]


def run(options: Options) -> bool:
    """Run each, ask, print, save; whether all do what they are for."""
    torch.set_num_threads(options.threads)
    found = {name: _one(name, options) for name in options.cases or SHORT}
    checks = {
        f"{name}: {text}": holds for name, one in found.items() for text, holds in one["checks"].items()
    }
    record.table(["as it should be", "holds"], [[text, holds] for text, holds in checks.items()])
    for figures in found.values():
        record.save(f"recipe.{figures['title']}", options, figures)
    return options.quick or all(checks.values())


def _one(name: str, options: Options) -> dict[str, Any]:
    """The stages of one recipe (what each says of itself, seconds of those that were not reused), and its checks."""
    changes = (*(SHORT.get(name, ()) if options.quick else ()), *options.overrides)
    title, stages = staging.as_run(FOLDER / f"{name}.yaml", changes)
    told: dict[str, dict[str, Any]] = {}

    def tell(event: Event) -> None:
        if event.made is not None:
            seconds = None if event.status == "reused" else round(event.seconds, 1)
            cost = {key: event.made.record[key] for key in ("cpu_seconds", "peak_memory")}
            told[event.stage] = {"id": event.made.id, "seconds": seconds, **cost, "line": event.detail}
            print(f"  {event.stage} ({seconds} s): {event.detail}", flush=True)

    try:
        made = staging.recipe(title, stages, Workspace(options.workspace), tell)
    except GateFailed as failed:
        return {"title": title, "stages": told, "checks": {"the gates pass": False}, "gate": str(failed)}
    figures, checks = JUDGES[name](made, options.seed) if name in JUDGES else ({}, {})
    print(f"  {figures}", flush=True)
    return {
        "title": title,
        "stages": told,
        **figures,
        **_exams(made),
        "checks": {"the gates pass": True, **checks},
    }


def _exams(made: Made) -> dict[str, Any]:
    """What exams found beside another model, and answers of both to the questions that are only looked at."""
    found = {
        name: {
            "metrics": one.summary["metrics"],
            "samples": read_json(one.file("results.json"), limit=MOST, what="results of an exam")["samples"],
        }
        for name, one in made.items()
        if one.kind == evaluate.KIND
    }
    return {"exams": found} if found else {}


def _fills(made: Made, seed: int) -> Judged:
    folder, tokens = made["model"].path, shards.load(made["tokens"].path)
    model, tokenizer = store.load_for_inference(folder), tokenizers.load(folder)
    hide = masking(tokenizer, model.config.vocabulary, seed)
    learnt, asked = (np.concatenate(list(_ids(tokens, split))) for split in ("train", "heldout"))
    shares = objectives.top1(model, hide, learnt, asked)
    return {"masks": shares}, objectives.fills(shares)


def _ids(tokens: shards.TokenShards, split: str) -> Iterator[np.ndarray[Any, Any]]:
    for shard in tokens.shards(split):
        yield np.asarray(tokens.open(shard).ids_N)


def _translates(made: Made, seed: int) -> Judged:
    rows = list(read_conversations(made["pairs"].file("heldout.jsonl")))
    folder = made["model"].path
    model, tokenizer = store.load_for_inference(folder), tokenizers.load(folder)
    untrained = initialize(Transformer(model.config), seed).eval()
    asked = [str(row.messages[0]["content"]) for row in rows]
    shares = {
        who: objectives.scores(rows, objectives.answer(one, tokenizer, asked))
        for who, one in (("model", model), ("untrained", untrained))
    }
    return {"numbers": shares, "heldout": len(rows)}, {
        f"{objectives.LEAST_EXACT:.0%} of held-out numbers are right": shares["model"]["exact"]
        >= objectives.LEAST_EXACT,
        "first weights get none": shares["untrained"]["exact"] == 0,
    }


JUDGES: dict[str, Callable[[Made, int], Judged]] = {"encoder": _fills, "translate": _translates}
