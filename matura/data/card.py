"""The data card: README.md with Hugging Face front matter and the sections of a datasheet (arXiv:1803.09010).

What the numbers tell is filled in; what only a person can know is asked for. No local path is written.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from matura.core.files import size_text
from matura.core.page import visible

SIZES = (
    ("n<1K", 10**3),
    ("1K<n<10K", 10**4),
    ("10K<n<100K", 10**5),
    ("100K<n<1M", 10**6),
    ("1M<n<10M", 10**7),
)
LARGER = (("10M<n<100M", 10**8), ("100M<n<1B", 10**9), ("n>1B", None))
HUB_LICENSES = """
afl-3.0 agpl-3.0 apache-2.0 apple-amlr apple-ascl artistic-2.0 bigcode-openrail-m bigscience-bloom-rail-1.0
bigscience-openrail-m bsd bsd-2-clause bsd-3-clause bsd-3-clause-clear bsl-1.0 c-uda cc cc0-1.0 cc-by-2.0 cc-by-2.5
cc-by-3.0 cc-by-4.0 cc-by-nc-2.0 cc-by-nc-3.0 cc-by-nc-4.0 cc-by-nc-nd-3.0 cc-by-nc-nd-4.0 cc-by-nc-sa-2.0
cc-by-nc-sa-3.0 cc-by-nc-sa-4.0 cc-by-nd-4.0 cc-by-sa-3.0 cc-by-sa-4.0 cdla-permissive-1.0 cdla-permissive-2.0
cdla-sharing-1.0 creativeml-openrail-m deepfloyd-if-license ecl-2.0 epl-1.0 epl-2.0 etalab-2.0 eupl-1.1 eupl-1.2
fair-noncommercial-research-license gemma gfdl gpl gpl-2.0 gpl-3.0 h-research intel-research isc lgpl lgpl-2.1 lgpl-3.0
lgpl-lr llama2 llama3 llama3.1 llama3.2 llama3.3 llama4 lppl-1.3c mit mpl-2.0 ms-pl ncsa odbl odc-by ofl-1.1 openrail
openrail++ osl-3.0 pddl postgresql unlicense wtfpl zlib
"""
"""Names that the hub takes for a licence; anything else is `other` there, and none `unknown`."""
OTHER, UNKNOWN = "other", "unknown"
MAX_ROWS = 30
PII = {
    "mask": "replaced by typed placeholders",
    "pseudonymise": "replaced by made-up values, the same for the same value",
    "report": "counted and left in the texts",
    "drop": "a reason to drop the document",
}


def render(funnel: Mapping[str, Any]) -> str:
    """The card's text."""
    return "\n".join([*_front(funnel), *_composition(funnel), *_preprocessing(funnel), *_asked()]) + "\n"


def size_category(documents: int) -> str:
    """The Hugging Face category of a number of documents."""
    return next(name for name, below in (*SIZES, *LARGER) if below is None or documents < below)


def _front(funnel: Mapping[str, Any]) -> Iterator[str]:
    """YAML; JSON strings are YAML strings, so nothing in a name can break out."""
    import yaml

    languages = [
        name for name in funnel.get("languages", {}) if re.fullmatch(r"[a-z]{2,3}", name) and name != "und"
    ]
    licenses = sorted({hub_license(name) for name in funnel.get("licenses", {})})
    values = {
        "license": licenses or [UNKNOWN],
        **({"language": languages} if languages else {}),
        "size_categories": [size_category(_documents(funnel))],
        "task_categories": ["text-generation"],
        "tags": ["pretraining", "curated", "matura"],
        # Else the hub would take what was dropped, and the pairs of copies, for data.
        "configs": [{"config_name": "default", "data_files": [_split("train"), _split("heldout")]}],
    }
    yield from ("---", yaml.safe_dump(values, sort_keys=False).rstrip(), "---", "")


def _split(name: str) -> dict[str, str]:
    return {"split": name, "path": f"{name}.parquet"}


def hub_license(name: str) -> str:
    """The hub's name for a licence, by its SPDX identifier or by that name; "" (none is named) is unknown."""
    low = re.sub(r"-(only|or-later)$", "", name.lower())
    if low.startswith("gfdl-"):
        low = "gfdl"
    if not name or low == UNKNOWN:
        return UNKNOWN
    return low if low in HUB_LICENSES.split() else OTHER


def _documents(funnel: Mapping[str, Any]) -> int:
    return int(funnel["train"]["documents"] + funnel["heldout"]["documents"])


def _composition(funnel: Mapping[str, Any]) -> Iterator[str]:
    yield from ("# Data card", "", "## Motivation", "")
    yield from ("*To be filled in: why was this corpus made, by whom, and who paid for it?*", "")
    yield from ("## Composition", "", "| part | documents | text | tokens (about) |", "|---|---:|---:|---:|")
    for part, name in (("train", "to learn from"), ("heldout", "held out")):
        one = funnel[part]
        yield f"| {name} | {one['documents']:,} | {size_text(one['bytes'])} | {one['tokens']:,} |"
    for key, title in (("sources", "source"), ("languages", "language"), ("licenses", "licence")):
        group = funnel.get(key, {})
        if not group or set(group) == {""}:
            continue
        yield from ("", f"| {title} | documents | text |", "|---|---:|---:|")
        ordered = sorted(group.items(), key=lambda item: (-item[1]["bytes"], item[0]))
        for name, one in ordered[:MAX_ROWS]:
            yield f"| {_cell(name or 'not named')} | {one['documents']:,} | {size_text(one['bytes'])} |"
        if len(ordered) > MAX_ROWS:
            yield f"| {len(ordered) - MAX_ROWS} more | | |"
    if not any(funnel.get("licenses", {})):
        yield from (
            "",
            "*To be filled in: no source named a licence. Under which terms may the texts be used?*",
        )
    yield from ("", "Columns: `id` (hash), `text`, `source`, `meta`.", "")


def _preprocessing(funnel: Mapping[str, Any]) -> Iterator[str]:
    yield from ("## Collection", "")
    yield from ("*To be filled in: when and how were the sources obtained, and did the authors agree?*", "")
    yield from ("## Preprocessing", "", "| step | documents in | out | left out for |", "|---|---:|---:|---|")
    for step in funnel["steps"]:
        ordered = sorted(step["dropped"].items(), key=lambda item: (-item[1], item[0]))
        reasons = ", ".join(f"{_cell(reason)} ({count:,})" for reason, count in ordered[:6])
        more = f", {len(ordered) - 6} other reasons" if len(ordered) > 6 else ""
        yield f"| {_cell(step['name'])} | {step['documents_in']:,} | {step['documents_out']:,} | {reasons}{more} |"
    pii = funnel.get("pii", {})
    counts = {key: n for key, n in pii.get("counts", pii).items() if key != "documents"}
    if counts:
        action = funnel["settings"]["pii"]["action"]
        listed = ", ".join(f"{count:,} {_cell(kind)}" for kind, count in sorted(counts.items()))
        yield from ("", f"Personal data and secrets found: {listed}. They were {PII[action]}.")
        yield "No search finds all: expect that some are left."
    if funnel["settings"].get("canary", {}).get("rates"):
        yield from ("", "Made-up secrets were planted to measure memorisation; `canaries.json` lists them.")
    yield from ("", "`report.html` has distributions, thresholds and examples.", "")


def _asked() -> Iterator[str]:
    """What no number tells."""
    yield from ("## Uses", "", "Meant for training language models on text.")
    yield from ("*To be filled in: which uses are foreseen, and which should be avoided?*", "")
    yield from (
        "## Distribution",
        "",
        "*To be filled in: who may have this corpus, and under which licence?*",
        "",
    )
    yield from (
        "## Maintenance",
        "",
        "*To be filled in: who answers questions and removes texts on request?*",
    )


def _cell(text: str) -> str:
    """A text from outside within a table: one line, no markup."""
    line = " ".join(visible(text, 120).split())
    return re.sub(r"([\\`*_\[\]<>|!#&])", r"\\\1", line).replace("://", ":&#47;/")
