"""Filters and signatures of curation beside datatrove's, on the same documents, in seconds of CPU.

datatrove runs three times: as it ships (words and sentences by spaCy), each step by itself; the same with its filters
in a chain, where neighbours share its cache of words; and each step by itself with its tokenizer replaced by
`str.split`. Matura counts words as `str.split` too, so those decisions must agree; sentences (C4) are compared with
those of spaCy. Matura's filters run each by itself, with nothing shared between them; its signatures are those of the
curate stage, which folds every text once for exact and fuzzy deduplication. What they hold beyond datatrove's (the
shingles that verify pairs) is in their time.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.curation_texts import sample
from benchmarks.record import save, table

if TYPE_CHECKING:
    from benchmarks.options import Options

FILTERS = ("repetition", "gopher", "c4", "fineweb")
VARIANTS = ("shipped", "chained", "split")
GOALS = {"shipped": 50.0, "split": 4.0}  # how many times as fast Matura is to be
AGREEMENT = 0.99
BATCH = 256


def run(options: Options) -> bool:
    """Both sides in turns, so that what drifts hits both; medians over the rounds. False when a goal is missed."""
    texts = sample(60 if options.quick else 2000, options.seed, options.text)
    size = sum(len(text.encode()) for text in texts) / 1e6
    print(f"{len(texts)} documents, {size:.1f} MB", flush=True)
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in ("ours", *VARIANTS)}
    with tempfile.TemporaryDirectory() as folder:
        _ours(texts[:BATCH], Path(folder) / "warm")
        for n in range(options.default(options.pairs, 2, 1)):
            for variant in VARIANTS:
                runs["ours"].append(_ours(texts, Path(folder) / f"{variant}{n}"))
                runs[variant].append(_theirs(variant, texts, Path(folder) / f"{variant}{n}", options.peer))
    seconds = {side: _medians([one["seconds"] for one in found]) for side, found in runs.items()}
    speeds = _speeds(seconds, size)
    total = {side: sum(steps.values()) for side, steps in seconds.items()}
    ratios = {side: total[side] / total["ours"] for side in VARIANTS}
    agreement = _agreement(runs["ours"][0], runs["split"][0], runs["shipped"][0])
    slowest = max(seconds["ours"], key=lambda name: seconds["ours"][name])
    _print(speeds, ratios, agreement)
    print(f"Bound: {size / total['ours']:.1f} MB per CPU-second; most of it is {slowest}.")
    figures = {
        "peer": f"datatrove {runs['shipped'][0]['version']}",
        "documents": len(texts),
        "mb": size,
        "cpu_seconds": seconds,
        "mb_per_cpu_second": speeds,
        "documents_per_cpu_second": {side: len(texts) / value for side, value in total.items()},
        "times_as_fast": ratios,
        "goals": GOALS,
        "agreement": agreement,
    }
    save("curation_speed", options, figures)
    agreed = all(one["agree"] >= AGREEMENT for one in agreement.values())
    return options.quick or (agreed and all(ratios[side] >= goal for side, goal in GOALS.items()))


def _ours(texts: list[str], folder: Path) -> dict[str, Any]:
    """Every document through every step; Parquet read and written is in the time of the signatures."""
    from matura.core.corpus_settings import Fuzzy
    from matura.core.records import Document, write_documents
    from matura.data.dedup.signatures import Scheme, sign
    from matura.data.steps import build

    documents = [Document(str(number), text, "") for number, text in enumerate(texts)]
    seconds: dict[str, float] = {}
    decisions: dict[str, list[str]] = {}
    kept: dict[str, str] = {}
    for name in FILTERS:
        step = build(f"matura.data.filters.{name}:make", {})
        start = time.process_time()
        outcomes = [step(documents[at : at + BATCH]) for at in range(0, len(documents), BATCH)]
        seconds[name] = time.process_time() - start
        reasons = {one.id: one.reason for outcome in outcomes for one in outcome.dropped}
        decisions[name] = [reasons.get(document.id, "") for document in documents]
        kept = {one.id: one.text for outcome in outcomes for one in outcome.kept} if name == "c4" else kept
    folder.mkdir()
    write_documents(folder / "part.parquet", documents)
    scheme = Scheme.of(Fuzzy(use="on"))
    task = {
        "documents": str(folder / "part.parquet"),
        "signatures": str(folder / "signatures.parquet"),
        "scheme": (scheme.words, scheme.bands, scheme.rows),
    }
    start = time.process_time()
    sign(task)
    seconds["signatures"] = time.process_time() - start
    return {
        "seconds": seconds,
        "decisions": decisions,
        "c4_texts": [kept.get(document.id, document.text) for document in documents],
    }


def _theirs(variant: str, texts: list[str], folder: Path, python: Path | None) -> dict[str, Any]:
    path = folder / "texts.jsonl"
    with path.open("w", encoding="utf-8") as file:
        file.writelines(json.dumps(text) + "\n" for text in texts)
    script = Path(__file__).with_name("curation_peer.py")
    words = [str(python or sys.executable), str(script), variant, str(path), str(folder)]
    done = subprocess.run(words, capture_output=True, text=True, stdin=subprocess.DEVNULL)
    if done.returncode:
        raise RuntimeError(
            f"{' '.join(words)} failed (datatrove[io,processing] and spacy belong into an environment of their own; "
            f"name its interpreter with --peer):\n{done.stderr[-4000:]}"
        )
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    seconds = result["seconds"]
    seconds["signatures"] = seconds.pop("exact") + seconds.pop("minhash")
    return result


def _medians(found: list[dict[str, float]]) -> dict[str, float]:
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def _speeds(seconds: dict[str, dict[str, float]], size: float) -> dict[str, dict[str, float]]:
    """MB per CPU-second of each step, and of all together."""
    return {
        side: {name: size / value for name, value in [*steps.items(), ("all", sum(steps.values()))]}
        for side, steps in seconds.items()
    }


def _agreement(
    ours: dict[str, Any], split: dict[str, Any], shipped: dict[str, Any]
) -> dict[str, dict[str, Any]]:
    """Share of equal decisions by filter, how often each pair of reasons met, and all four filters together."""
    made: dict[str, dict[str, Any]] = {}
    with_split = {name: (shipped if name == "c4" else split)["decisions"][name] for name in FILTERS}
    for name in FILTERS:
        pairs = Counter(zip(ours["decisions"][name], with_split[name], strict=True))
        made[name] = {
            **_shares(ours["decisions"][name], with_split[name]),
            "with_shipped": _shares(ours["decisions"][name], shipped["decisions"][name])["agree"],
            "reasons": {f"{a or 'kept'} | {b or 'kept'}": count for (a, b), count in pairs.most_common()},
        }
    made["c4"]["equal_texts"] = _equal_texts(ours, shipped)
    together = [
        ["".join(reasons) for reasons in zip(*(side[name] for name in FILTERS), strict=True)]
        for side in (ours["decisions"], with_split, shipped["decisions"])
    ]
    made["all"] = {**_shares(*together[:2]), "with_shipped": _shares(together[0], together[2])["agree"]}
    return made


def _shares(ours: list[str], theirs: list[str]) -> dict[str, float]:
    count = len(ours)
    return {
        "agree": sum((not a) == (not b) for a, b in zip(ours, theirs, strict=True)) / count,
        "kept_ours": ours.count("") / count,
        "kept_theirs": theirs.count("") / count,
    }


def _equal_texts(ours: dict[str, Any], shipped: dict[str, Any]) -> float:
    """Share of equal texts among the documents that both keep: the same lines were cut."""
    decisions = zip(ours["decisions"]["c4"], shipped["decisions"]["c4"], strict=True)
    both = [n for n, (a, b) in enumerate(decisions) if not a and not b]
    return sum(ours["c4_texts"][n] == shipped["c4_texts"][n] for n in both) / max(1, len(both))


def _print(speeds: dict[str, dict[str, float]], ratios: dict[str, float], agreement: dict[str, Any]) -> None:
    sides = ("ours", *VARIANTS)
    rows = [[name, *(speeds[side][name] for side in sides)] for name in speeds["ours"]]
    table(("MB per CPU-second", "ours", "datatrove shipped", "chained", "with str.split"), rows)
    for side, ratio in ratios.items():
        print(
            f"{ratio:.1f} times as fast as datatrove, {side}"
            + (f"; to be {GOALS[side]:g}" if side in GOALS else "")
        )
    shares = ("agree", "kept_ours", "kept_theirs", "with_shipped")
    table(("decisions", *shares), [[name, *(one[key] for key in shares)] for name, one in agreement.items()])
