"""Recipes as they are shipped, run to their ends, and asked whether they do what their first lines say.

`encoder`: the model fills masks in held-out documents, beside the most frequent token and beside a trigram model of the
text it learned from (see `objectives`). `translate`: held-out numbers to words and back, exactly; control: the first
weights of the same model. `forgetting`: what forgets is told from what does not. `classifier`, in a folder with its
e-mails: what was pre-trained is above the same network from scratch, on the same held-out texts; 200 of them tell
little, `--overrides emails.heldout=800` more. Of the others (`--cases NAME`: dpo, pretrain, raft ...) the gates are the
question. Finished stages are reused, in the usual workspace or that of `--workspace`.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks import objectives, record, staging
from benchmarks.options import Options
from matura import api
from matura.core.artifact import Artifact
from matura.core.errors import GateFailed
from matura.core.records import Document, read_conversations, read_documents
from matura.core.run import Event
from matura.core.workspace import Workspace
from matura.data import shards
from matura.evaluate.statistics import interval, paired
from matura.model import store
from matura.model.initialize import initialize
from matura.model.transformer import Transformer
from matura.stages import evaluate
from matura.tokenizer import tokenizer as tokenizers
from matura.train.corrupt import masking

FOLDER = Path(__file__).parents[1] / "recipes"
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
    found: dict[str, dict[str, Any]] = {}
    for name in options.cases or SHORT:
        found[name] = _one(name, options)
        record.save(f"recipe.{found[name]['title']}", options, found[name])
    checks = {
        f"{name}: {text}": holds for name, one in found.items() for text, holds in one["checks"].items()
    }
    record.table(["as it should be", "holds"], [[text, holds] for text, holds in checks.items()])
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
            "samples": staging.results(one)["samples"],
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


def _forgets(made: Made, seed: int) -> Judged:
    hasty, careful = (made[name].summary["metrics"] for name in ("exam_hasty", "exam_careful"))
    meters = {name: made[name].summary["forgetting"] for name in ("hasty", "stopped", "careful")}
    front = made["way_back"].summary["front"]
    whole, back = front[-1], next(row for row in front if row["alpha"] == made["way_back"].summary["alpha"])
    return {"meters": meters, "front": front}, {
        "hasty tuning learns the documents": hasty["domain.bpb"]["verdict"] == "improved",
        "and forgets": hasty["general.gold_bpb"]["verdict"] == "regressed",
        "careful tuning learns them": careful["domain.bpb"]["verdict"] == "improved",
        "and does not forget": careful["general.gold_bpb"]["verdict"] in ("improved", "unchanged"),
        "a limit of 3% holds": meters["stopped"]["change"] <= 0.03 < meters["hasty"]["change"],
        "on the way back general text costs less": back["general_change"] < whole["general_change"],
        "and the documents still less than the parent's": back["task_change"] < 0,
    }


def _classifies(made: Made, seed: int) -> Judged:
    held = list(read_documents(made["emails"].file("heldout.parquet")))
    right = {name: _right(made[name], held) for name in ("scratch", "judge")}
    pair = paired(right["scratch"], right["judge"], seed=seed)
    low, high = interval(pair.difference_samples)
    kept = Counter(
        one.meta["origin"]
        for side in ("train", "heldout")
        for one in read_documents(made["clean"].file(f"{side}.parquet"))
    )
    shares = {name: sum(found) / len(found) for name, found in right.items()}
    lead = {"value": pair.difference, "low": low, "high": high}
    return {"right": shares, "heldout": len(held), "lead": lead, "kept": dict(kept)}, {
        "pre-training helps: the interval of the lead is above zero": low > 0,
        "curation keeps mail and leaves spam": kept["ham"] > 10 * kept["spam"],
    }


def _right(model: Artifact, held: Sequence[Document]) -> list[float]:
    """1 for every text whose likeliest label is right, cut as in training."""
    sequence = model.config["sequence"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the texts that are cut
        found = api.load(model.path).classify([one.text for one in held], max_tokens=sequence)
    return [float(scores[0][0] == one.meta["origin"]) for scores, one in zip(found, held, strict=True)]


JUDGES: dict[str, Callable[[Made, int], Judged]] = {
    "encoder": _fills,
    "translate": _translates,
    "forgetting": _forgets,
    "classifier": _classifies,
}
