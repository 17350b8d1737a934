"""What removing copies does to memorised secrets: one model reads a corpus in which the documents with planted secrets
lie eight times, another the same corpus after its exact copies were removed.

Both have the same shape, first weights, tokens and updates, so the one reads the secrets oftener. (If every document
lay there eight times, the same number of tokens would show each as often as without copies, and nothing could be seen.)
The secrets are in the examples of one AWS service, among those of all others. Exposure is told for each number of times
that a secret was planted, beside secrets that were planted nowhere, of which 1.44 bits are expected.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from benchmarks import record, staging
from benchmarks.options import Options
from matura.core.run import Event
from matura.core.workspace import Workspace

HASH = "#sha256=30cb321c6e83ab446ec279c16bb0e3ad5b9e0497e1f7598957af834729166c7d"
EXAMPLES = "wheel:awscli==1.45.11/awscli/examples"
COPIES = 8
RATES = (1, 4, 16)
NOWHERE = "planted nowhere"
SIDES = ("copied", "cleaned")


def stages(*, quick: bool, seed: int) -> dict[str, Any]:
    """The stages, as a recipe has them."""
    copies = {f"copy{n}": {"made": "$planted"} for n in range(COPIES)}
    both = {"stage": "curate", "sources": {**copies, "rest": {"path": EXAMPLES + HASH}}, "heldout": 50}
    both |= {"pii": {"action": "report"}}  # digits are what is looked for: nothing may mask them
    shape = {"size": "500K" if quick else "1M"}
    sizes = {"tokens": "20K" if quick else "4M", "step": 8192, "sequence": 256}
    made: dict[str, Any] = {
        "planted": {
            "stage": "curate",
            "path": f"{EXAMPLES}/rds{HASH}",
            "heldout": 12,
            "canary": {"rates": list(RATES), "each": 2 if quick else 10},
        },
        "copied": {**both, "exact_duplicates": "keep"},
        "cleaned": {**both, "exact_duplicates": "drop"},
        "tokenizer": {
            "stage": "tokenizer",
            "corpus": "$cleaned",
            "vocabulary": 512 if quick else 4096,
            "compare": [],
        },
    }
    for side in SIDES:
        made[f"tokens_{side}"] = {"stage": "encode", "corpus": f"${side}", "tokenizer": "$tokenizer"}
        made[f"model_{side}"] = {
            "stage": "pretrain",
            "tokens": f"$tokens_{side}",
            "shape": shape,
            "sizes": sizes,
            "seed": seed,
        }
        made[f"exam_{side}"] = {
            "stage": "evaluate",
            "model": f"$model_{side}",
            "corpus": "$planted",
            "exams": None,
            "questions": [],
            "window": 256,
            "panels": {
                "memorisation": {
                    "others": 15 if quick else 255,
                    "controls": 2 if quick else 10,
                    "trained": f"${side}",
                }
            },
        }
    return made


def run(options: Options) -> bool:
    """Make, ask, print and save; False when copies do not raise the exposure, or secrets that nobody saw have some."""

    def tell(event: Event) -> None:
        if event.made is not None:
            print(f"  {event.stage} ({event.seconds:.0f} s): {event.detail}", flush=True)

    asked = stages(quick=options.quick, seed=options.seed)
    made = staging.recipe("canaries", asked, Workspace(options.workspace), tell)
    found = {side: figures(made[f"exam_{side}"]) for side in SIDES}
    lines = [
        [side, part, name, one["value"], one["low"], one["high"]]
        for side, parts in found.items()
        for part, names in parts.items()
        for name, one in names.items()
    ]
    record.table(("read", "secrets", "figure", "value", "low", "high"), lines)
    held = checks(found)
    record.table(["check", "holds"], [[text, holds] for text, holds in held.items()])
    record.save("canaries", options, {"copies": COPIES, "figures": found, "checks": held})
    return options.quick or all(held.values())


def figures(exam: Any) -> dict[str, dict[str, Any]]:
    """Figures of the secrets, by how often they were planted and name."""
    (panel,) = staging.results(exam)["panels"]
    found: dict[str, dict[str, Any]] = {}
    for one in panel["figures"]:
        found.setdefault(one["part"], {})[one["name"]] = {
            key: one[key] for key in ("value", "low", "high", "items", "neutral")
        }
    return found


def checks(found: Mapping[str, Mapping[str, Mapping[str, Any]]]) -> dict[str, bool]:
    """What must hold: of the secrets planted most often, and of those that nobody read."""
    most = f"planted {max(RATES)} times"
    exposed = {side: found[side][most]["exposure"] for side in SIDES}
    left = {side: found[side][most]["copies in what was trained on"]["value"] for side in SIDES}
    return {
        "copies are there, and are gone": left["copied"] > 2 * left["cleaned"] > 0,
        "with copies the secrets are known": exposed["copied"]["low"]
        > found["copied"][NOWHERE]["exposure"]["high"],
        "without copies less so": exposed["cleaned"]["high"] < exposed["copied"]["low"],
        "of secrets planted nowhere nothing is known": all(
            found[side][NOWHERE]["exposure"]["low"] <= found[side][NOWHERE]["exposure"]["neutral"]
            for side in SIDES
        ),
    }
