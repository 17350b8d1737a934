"""A small run, made by hand: curation, a training, an exam and a ranking with a gate."""

import json
from pathlib import Path

from matura.core import artifact
from matura.core.files import write_json
from matura.core.preferences import Answer, Ranking, write_rankings
from matura.core.workspace import Workspace
from matura.evaluate.gates import Gate, accuracy, bits_per_byte, judge
from matura.train.samples import write_samples

NASTY = "<script>alert('x')</script> {{ 7 * 7 }}"
STEP = {
    "name": "length", "documents_in": 100, "documents_out": 63, "bytes_in": 9000, "bytes_out": 8000, "seconds": 1.0,
    "dropped": {"too short": 30, NASTY: 7}, "counts": {}, "measures": {},
}  # fmt: skip


def judged(*, better: bool):
    shift = 0.5 if better else 2.0
    bits = [100.0 + n for n in range(20)]
    figures = [
        bits_per_byte("domain.bpb", bits, [shift * one for one in bits], [100] * 20),
        accuracy("piqa.acc", [1] * 80 + [0] * 40, [1] * 80 + [0] * 40, 0.5),
    ]
    rows, reasons = judge(figures, [Gate("domain.bpb", "not improved")], resamples=1000)
    return [one.as_dict() for one in rows], reasons


def made(run: Path, name: str, kind: str, stage: str, write=lambda folder: None, inputs=None, **summary):
    draft = artifact.begin(
        run / f"{name}-0123456789ab", kind=kind, stage=stage, version=2, config={}, inputs=inputs or {}
    )
    write(draft.path)
    return draft.commit({"line": f"line of {name}", **summary})


def curated(folder: Path) -> None:
    write_json(folder / "report.json", {"steps": [STEP], "settings": {}})
    (folder / "report.html").write_text("<p>")


def ranked(folder: Path) -> None:
    rows = [
        Ranking(
            f"r{n}", ({"role": "user", "content": f"task {n}"},), (Answer(f"said {n}", score=0.5),),
            facts={"gold": f"gold {n}"},
        )
        for n in range(12)
    ]  # fmt: skip
    write_rankings(folder / "heldout.jsonl", rows)


def training(run: Path, name: str, *, finished: bool = True, **more):
    draft = artifact.begin(
        run / f"{name}-0123456789ab", kind="model", stage="pretrain", version=1, config={}, **more
    )
    for step in range(12):
        heldout = {"heldout_bpb": 3.0 - step / 10} if step % 4 == 0 else {}
        draft.metrics.log(step, tokens=1000 * step, loss=5.0 - step / 4, **heldout)
    write_samples(draft.path, [{"step": n, "prompt": NASTY, "text": f"text {n}"} for n in (4, 8)])
    summary = {"line": f"line of {name}", "tokens": 11_000, "flops": 4e9, "dropped": {"too long": 3}}
    return draft.commit(summary) if finished else None


def small(root: Path, *, passed: bool = True) -> Workspace:
    """A finished run `life`, or one that ended at its exam."""
    workspace = Workspace(root / "workspace")
    run = workspace.runs / "life"
    (root / "notes").mkdir()
    (root / "notes" / "a.txt").write_text("some text")
    raw = artifact.raw_input(root / "notes")
    corpus = made(run, "corpus", "corpus", "curate", curated, {"path": raw})
    model = training(run, "model", inputs={"tokens": corpus})
    metrics, reasons = judged(better=passed)
    gate = {"passed": passed, "reasons": reasons}
    samples = [{"question": "why?", "parent": "no idea", "child": NASTY}]
    found = {"metrics": metrics, "gate": gate, "line": "it", "tasks": {"child": []}, "samples": samples}
    inputs = {"model": model, "parent": model}
    exam = made(
        run, "exam", "evaluation", "evaluate", lambda to: write_json(to / "results.json", found), inputs,
        gate=gate,
    )  # fmt: skip
    stages = {"corpus": corpus, "model": model, "exam": exam}
    if passed:
        sides = {"train": {"prompts": 0}, "heldout": {"prompts": 12, "answers": 24, "reward.rule": 0.25}}
        stages["rank"] = made(
            run, "rank", "preferences", "rank", ranked, {"samples": model}, score={**metrics[0], "name": "score"},
            gate={"passed": True, "reasons": []}, **sides,
        )  # fmt: skip
        stages["first"] = made(
            run, "first", "preferences", "rank", ranked, {"samples": model}, **sides
        )  # judged, but beside no other
        stages["tried"] = made(run, "tried", "samples", "sample", inputs={"model": model}, **sides)
        stages["lessons"] = made(
            run,
            "lessons",
            "preferences",
            "rank",
            ranked,
            {"samples": model},
            **{**sides, "train": {"prompts": 9}},
        )  # to learn from
    listed = {name: entry(one.path, "made") for name, one in stages.items()}
    listed["exam"] = entry(exam.path, "made" if passed else "gate failed")
    record(run, listed, "finished" if passed else "gate failed", [] if passed else ["export"])
    return workspace


def entry(place: Path, status: str) -> dict:
    return {"dir": place.name, "status": status}


def record(run: Path, stages: dict, state: str, to_come: list) -> None:
    told = {"schema": 1, "stages": stages, "state": state, "to_come": to_come}
    (run / "run.json").write_text(json.dumps(told))
