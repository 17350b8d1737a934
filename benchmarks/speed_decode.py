"""Cached greedy generation beside transformers' `generate`: one prompt alone, and 16 ragged ones together."""

from __future__ import annotations

import json
import random
import sys
import time
from typing import Any

from benchmarks import record, reference, sides
from benchmarks.options import Options, read_text

CASES: dict[str, dict[str, Any]] = {
    "one": {"prompts": [16], "new": 64, "goal": 1.3, "floor": None},
    "batch": {"prompts": None, "new": 64, "goal": 1.0, "floor": 150.0},
}
ROWS = 16


def run(options: Options) -> bool:
    """Measure, print and save; False when a goal is missed or the two sides answered differently."""
    made = reference.find_model(options.model)
    reference.folder(made)
    text, _ = options.read_text()
    draw = random.Random(options.seed)
    found = {}
    for case, about in CASES.items():
        if options.cases and case not in options.cases:
            continue
        settings = {
            "case": case,
            "model": options.model,
            "text": options.text_place,
            "threads": options.threads,
            "prompts": about["prompts"] or [draw.randint(4, 64) for _ in range(ROWS)],
            "new": 8 if options.quick else about["new"],
            "repeats": 1 if options.quick else 3,
            "seed": options.seed,
        }
        pairs = sides.pairs("speed_decode", settings, options.default(options.pairs, 3, 1), options.threads)
        same = all(pair["ours"]["answers"] == pair["theirs"]["answers"] for pair in pairs)
        for pair in pairs:
            for one in pair.values():
                del one["answers"]
        compared = sides.compare(pairs, settings)
        found[case] = {**compared, "goal": about["goal"], "floor": about["floor"], "same_answers": same}
    if not found:
        raise SystemExit(f"--cases: expected some of {', '.join(CASES)}")
    rows = [[*sides.row(case, f), f["same_answers"]] for case, f in found.items()]
    record.table([*sides.COLUMNS, "same answers"], rows)
    checks = {case: f["ratio"] >= f["goal"] for case, f in found.items()}
    checks |= {f"{case} same answers": f["same_answers"] for case, f in found.items()}
    checks |= {f"{case} memory": f["peak_mb"]["ours"] <= f["peak_mb"]["theirs"] for case, f in found.items()}
    checks |= {
        f"{case} at least {f['floor']:.0f} tok/s": f["tokens_per_second"]["ours"] >= f["floor"]
        for case, f in found.items()
        if f["floor"]
    }
    record.save("speed_decode", options, {"text": text, "cases": found, "checks": checks})
    return options.quick or all(checks.values())


def side(which: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One measurement in this process: a short warm-up, then the same prompts `repeats` times."""
    import torch

    torch.set_num_threads(settings["threads"])
    made = reference.find_model(settings["model"])
    prompts = _prompts(made, settings)
    answer = _ours(made) if which == "ours" else _theirs(made)
    loaded = sides.memory_mb("VmRSS")
    answer(prompts, min(8, settings["new"]))
    seconds, answers = [], []
    for _ in range(settings["repeats"]):
        began = time.perf_counter()
        answers = answer(prompts, settings["new"])
        seconds.append(time.perf_counter() - began)
    seconds.sort()
    middle = seconds[len(seconds) // 2]
    return {
        "tokens_per_second": len(prompts) * settings["new"] / middle,
        "seconds": seconds,
        "answers": answers,
        "loaded_mb": loaded,
        "peak_mb": sides.memory_mb("VmHWM"),
    }


def _prompts(made: Any, settings: dict[str, Any]) -> list[list[int]]:
    """Pieces of the text with the lengths asked for, from seeded places."""
    from matura.tokenizer import conversation

    _, text = read_text(settings["text"])
    ids = conversation.load(made.path).tokenizer.encode(text[:200_000])
    draw = random.Random(settings["seed"])
    starts = [draw.randrange(len(ids) - length) for length in settings["prompts"]]
    return [ids[at : at + length] for at, length in zip(starts, settings["prompts"], strict=True)]


def _ours(made: Any) -> Any:
    from matura import api
    from matura.core.settings import Sampling
    from matura.infer import engine

    model = api.LanguageModel(made).model

    def answer(prompts: list[list[int]], new: int) -> list[list[int]]:
        return engine.generate(
            model, prompts, Sampling(max_new_tokens=new, temperature=0), batch=len(prompts)
        )

    return answer


def _theirs(made: Any) -> Any:
    import torch
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(reference.folder(made), dtype=torch.float32).eval()

    def answer(prompts: list[list[int]], new: int) -> list[list[int]]:
        longest = max(map(len, prompts))
        padding = [longest - len(ids) for ids in prompts]
        ids_BT = torch.tensor([[*[0] * n, *ids] for n, ids in zip(padding, prompts, strict=True)])
        mask_BT = torch.tensor([[0] * n + [1] * len(ids) for n, ids in zip(padding, prompts, strict=True)])
        out_BT = model.generate(ids_BT, attention_mask=mask_BT, max_new_tokens=new, do_sample=False)
        new_ids: list[list[int]] = out_BT[:, longest:].tolist()
        return new_ids

    return answer


if __name__ == "__main__":
    print(json.dumps(side(sys.argv[1], json.loads(sys.argv[2]))))
