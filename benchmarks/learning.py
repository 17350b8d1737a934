"""Learning per minute: bits per byte on held-out text after the same wall-clock minutes on the same cores.

Every side trains on the first 90% of one text for `--seconds` (evaluation not counted) and predicts the rest (at most
250,000 characters), every byte of it once, with at least half its context before each token. Tokenizers may differ,
bytes are counted. A side falls to its final learning rate exactly with the end of its time, and its best weights on the
way count, as in nanoGPT's train.py. Three seeds; the best configuration of a peer, by its mean, is its result.

Finished runs are kept in `--results`/learning, so the hours may be spent in pieces: `--cases`, `--seed` and
`--pairs` (how many seeds) say which to make; what is told is everything that is kept of the text.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks import record, sides
from benchmarks.options import Options
from matura.core.files import read_json

PEERS = ("learning_nanogpt", "learning_trainer")
CASES = {
    "matura": ("learning_matura", "matura"),
    "nanogpt-readme": ("learning_nanogpt", "readme"),
    "nanogpt-10m": ("learning_nanogpt", "10m"),
    "nanogpt-10m-batch64": ("learning_nanogpt", "10m-batch64"),
    "trainer-0.8m": ("learning_trainer", "0.8m"),
    "trainer-3m": ("learning_trainer", "3m"),
    "trainer-10m": ("learning_trainer", "10m"),
}
"""Name of a side -> module that trains it, and the configuration there."""
VALIDATION = 250_000
"""Characters of the held-out part that are predicted, at most."""
GOAL = 0.92
"""Bits per byte of ours over those of the best peer."""
COLUMNS = ("side", "parameters", "steps", "tokens", "val bits/byte", "min", "max")


def run(options: Options) -> bool:
    """Train every side with every seed, print and save; False when ours is not better than the best peer by GOAL."""
    if options.text is None:
        raise SystemExit("--text: expected a file to learn from")
    cases = {name: case for name, case in CASES.items() if not options.cases or name in options.cases}
    if options.nanogpt is None and (needy := [n for n, (module, _) in cases.items() if module == PEERS[0]]):
        raise SystemExit(f"--nanogpt: expected a folder with nanoGPT's files for {', '.join(needy)}")
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in cases}
    for seed, name in _order(options, list(cases)):
        module, case = cases[name]
        found = _kept(module, case, name, _settings(options, seed), options)
        runs[name].append(found)
        print(f"  seed {seed} {name}: {found['val_bits_per_byte']:.4f} bits per byte", flush=True)
    if not options.quick:
        runs = _every_kept(options)
    scores = {name: [one["val_bits_per_byte"] for one in made] for name, made in runs.items()}
    record.table(COLUMNS, [_row(name, runs[name], scores[name]) for name in runs])
    means = {name: statistics.mean(found) for name, found in scores.items()}
    ratio = _ratio(means)
    checks = {} if ratio is None else {"8% below the best peer": ratio <= GOAL}
    figures = {"text": options.text.name, "runs": runs, "means": means, "ratio": ratio, "checks": checks}
    record.save(f"learning.{options.text.stem}", options, figures)
    return options.quick or all(checks.values())


def _kept(module: str, case: str, name: str, settings: dict[str, Any], options: Options) -> dict[str, Any]:
    """One run: read when it was made before with the same budget, else made and written."""
    budget = settings["seconds"]

    def make() -> dict[str, Any]:
        return sides.measure(module, case, settings, options.threads) | {"budget": budget}

    place = f"learning/{Path(settings['text']).stem}-{name}-{settings['seed']}"
    return record.kept(place, options, make, holds=lambda found: found["budget"] == budget)


def _every_kept(options: Options) -> dict[str, list[dict[str, Any]]]:
    """The runs of this text that are there with the same budget, by side and seed."""
    assert options.text is not None
    budget = _settings(options, 0)["seconds"]
    found = {}
    for name in CASES:
        places = sorted((options.results / "learning").glob(f"{options.text.stem}-{name}-[0-9]*.json"))
        made = [read_json(place, limit=1 << 20, what="a run") for place in places]
        if kept := [one for one in made if one["budget"] == budget]:
            found[name] = kept
    return found


def _order(options: Options, names: list[str]) -> Iterator[tuple[int, str]]:
    """Every side with one seed, then with the next: what drifts in the machine hits all alike."""
    for n in range(options.default(options.pairs, 3, 1)):
        for name in names if n % 2 == 0 else names[::-1]:
            yield options.seed + n, name


def _settings(options: Options, seed: int) -> dict[str, Any]:
    return {
        "text": str(options.text.resolve() if options.text else ""),
        "nanogpt": None if options.nanogpt is None else str(options.nanogpt.resolve()),
        "seed": seed,
        "threads": options.threads,
        "seconds": options.default(options.seconds, 600, 30),
        "validation": 5_000 if options.quick else VALIDATION,
        "vocabulary": None,
        "dropout": None,
        "lr": None,
        "weight_decay": 0.1,
    }


def _ratio(means: dict[str, float]) -> float | None:
    """Ours over the best peer; None when one of them did not run."""
    theirs = [means[name] for name in means if CASES[name][0] in PEERS]
    ours = [means[name] for name in means if CASES[name][0] not in PEERS]
    return min(ours) / min(theirs) if ours and theirs else None


def _row(name: str, made: list[dict[str, Any]], scores: list[float]) -> list[Any]:
    """One side under COLUMNS: of several seeds the mean, and the range of the score."""
    steps, tokens = (round(statistics.mean(one[key] for one in made)) for key in ("steps", "tokens"))
    shown = [f"{score:.4f}" for score in (statistics.mean(scores), min(scores), max(scores))]
    return [name, made[0]["parameters"], steps, tokens, *shown]
