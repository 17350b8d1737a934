"""Documents of the form that recipes/life.yaml reads, made on the spot, and settings for a life of seconds on them."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

SERVICES = {
    "s3": "bucket",
    "ec2": "instance",
    "iam": "role",
    "sns": "topic",
    "sqs": "queue",
    "rds": "cluster",
}
VERBS = ("create", "delete", "describe", "list", "update", "tag")
PLACES = ("a region", "an account", "a team", "a project", "a test", "a backup")
COPIED = 7
"""Every so many documents there is a near copy."""

SETTINGS: dict[str, dict[str, Any]] = {
    "corpus": {"heldout": 40, "engine": {"workers": 1}},
    "tokenizer": {"vocabulary": 512},
    "untrained": {"shape": {"size": "10K", "layers": 1, "width": 32}, "sizes": {"sequence": 128}},
    "base": {
        "shape": {"size": "10K", "layers": 1, "width": 32},
        "sizes": {"tokens": "50K", "step": 1024, "sequence": 128},
        "watch": {"sample_tokens": 0},
    },
    "read": {"texts": {"documents": 16, "document_tokens": 96}, "window": 128},
    "taught": {"tokens": 40_000, "tokens_per_step": 1024, "sequence": 128},
    "tried_base": {"heldout": 16, "draw": {"max_new_tokens": 32}},
    "tried_taught": {"heldout": 16, "draw": {"max_new_tokens": 32}},
    "tried_aligned": {"heldout": 16, "draw": {"max_new_tokens": 32}},
    "sampled": {"count": 24, "heldout": 8, "k": 4, "draw": {"max_new_tokens": 32}},
    "judge": {"epochs": 1, "tokens_per_step": 1024, "sequence": 128},
    "aligned": {"epochs": 1, "tokens_per_batch": 1024, "sequence": 128},
}
"""Settings by stage over those of the recipe."""


def write(folder: Path) -> None:
    """Handbooks of commands, a file for each service, verb and place, and near copies of some."""
    every = itertools.product(SERVICES.items(), VERBS, enumerate(PLACES))
    for number, ((service, thing), verb, (place_number, place)) in enumerate(every):
        operation = f"{verb}-{thing}"
        texts = {f"{operation}-{place_number}": _document(service, operation, verb, thing, place, number)}
        if number % COPIED == 0:
            copied = texts[f"{operation}-{place_number}"]
            texts[f"{operation}-{place_number}-again"] = copied.replace(
                "End of this page.", "End of this copy."
            )
        for name, text in texts.items():
            path = folder / service / f"{name}.rst"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")


def _document(service: str, operation: str, verb: str, thing: str, place: str, number: int) -> str:
    name = f"{thing}-{number:03d}"
    return (
        f"**To {verb} the {thing} of {place}**\n\n"
        f"The following ``{operation}`` example shows how to {verb} the {thing} {name} that belongs to {place}. The "
        f"{thing} must be there, and whoever asks must be allowed to {verb} it in {service}. ::\n\n"
        f"    aws {service} {operation} \\\n        --name {name}\n\n"
        f'Output::\n\n    {{"Name": "{name}", "Number": {number * 7919 % 1000}}}\n\n'
        f"For more about {place}, see the guide number {number} of {service} for the {thing}. End of this page.\n"
    )
