"""Licence and data of a model, as the hub's model card asks for them: what its lineage names, and nothing more."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matura.core import gguf, lineage, yamlfile
from matura.core.aliases import ALIASES, HubReference
from matura.core.artifact import Artifact
from matura.core.errors import ArtifactError, ConfigError, FormatError
from matura.core.files import hash_file
from matura.data import card
from matura.data.reading import licences

DATA_SET = re.compile(r"hf:([\w.-]+/[\w.-]+)")
FRONT_MATTER = re.compile(r"\A---[ \t]*\r?\n(.*?)^---[ \t]*$", re.DOTALL | re.MULTILINE)
LEARNED = (
    *("path", "made", "documents", "corpus", "tokens", "pairs", "labelled"),
    *("conversations", "replay", "prompts", "samples", "preferences"),
)
"""Last parts of the names of inputs that are learned from, or that such are made of. (Others are removed, compared with
or only measured on.)"""


@dataclass(frozen=True)
class Licence:
    """`id` is one of the hub's; `name` says which it is where that is "other"."""

    id: str = card.UNKNOWN
    name: str = ""

    def told(self) -> str:
        """For people."""
        if self.id == card.UNKNOWN:
            return (
                "not known, for nothing in its lineage names one: that of the base model and of the training data "
                "binds you"
            )
        return f"{self.name or self.id}, that of the model it began with; that of the training data binds you too"

    def front(self) -> dict[str, str]:
        """The keys of a card's front matter."""
        return {"license": self.id, **({"license_name": self.name} if self.name else {})}


@dataclass(frozen=True)
class Origin:
    """What a card says of where a model comes from: its licence, and the data sets of the hub by name."""

    licence: Licence
    data_sets: list[str]

    def front(self) -> dict[str, Any]:
        """The keys of a card's front matter."""
        return {**self.licence.front(), **({"datasets": self.data_sets} if self.data_sets else {})}


def origin(model: Artifact, line: Sequence[Artifact]) -> Origin:
    """Of a model and its line of descent. Files that it was read from are hashed, its whole lineage is walked."""
    return Origin(licence(line), data_sets(model))


def licence(line: Sequence[Artifact]) -> Licence:
    """The licence of the model that a line of descent begins with: that of its short name here, else what the files say
    that it was read from (a model card, a licence, the metadata of a GGUF file), as far as they are still the same."""
    first = line[0]
    if first.record["stage"] != "pull":
        return Licence()
    named = _of_alias(str(first.config["reference"])) or next(filter(None, _of_files(first)), "")
    found = card.hub_license(named)
    slug = re.sub(r"[^a-z0-9.]+", "-", named.lower()).strip("-")[:60] or "unnamed"
    return Licence(found, slug if found == card.OTHER else "")


def _of_alias(reference: str) -> str:
    repo = reference.removeprefix("hf:").partition("@")[0]
    for alias in ALIASES.values():
        if reference == alias.name or (isinstance(alias.source, HubReference) and alias.source.repo == repo):
            return alias.license
    return ""


def _of_files(pulled: Artifact) -> Iterator[str]:
    """What each of the files says, the surest first."""
    entry = pulled.inputs["files"]
    place, listed = Path(entry["path"]), entry.get("files", {})
    root = place if place.is_dir() else place.parent
    for said, wanted in ((_of_card, re.compile(r"README\.md")), (_of_text, licences.LICENCE_FILE)):
        for name in filter(wanted.fullmatch, listed):
            path = root / name
            with contextlib.suppress(OSError, ConfigError):
                if hash_file(path) == listed[name]["sha256"]:
                    yield said(path)
    for name in (name for name in listed if name.endswith(".gguf")):
        path = root / name
        with contextlib.suppress(OSError, FormatError):
            if path.stat().st_size == listed[name]["bytes"]:
                yield str(gguf.read(path).metadata.get("general.license", ""))


def _of_card(path: Path) -> str:
    """The licence in the front matter of a model card."""
    with path.open("rb") as file:
        text = file.read(yamlfile.MAX_BYTES).decode("utf-8", "replace")
    match = FRONT_MATTER.match(text)
    values = yamlfile.parse(match[1], str(path)).values if match else None
    if not isinstance(values, Mapping):
        return ""
    named: Any = values.get("license", "")
    if named == card.OTHER:
        named = values.get("license_name", named)
    return " and ".join(map(str, named)) if isinstance(named, list) else str(named or "")


def _of_text(path: Path) -> str:
    """The licence of which a file holds the text."""
    with path.open("rb") as file:
        return licences.licence(file.read(licences.MAX_LICENCE).decode("utf-8", "replace"))


def data_sets(model: Artifact) -> list[str]:
    """The data sets of the hub that the model learned of, and those that it was trained from or merged with, by name.
    What a teacher or a judge of its data had learned of is none of its own."""
    found, seen = set[str](), set[str]()

    def visit(one: Artifact) -> None:
        if one.id in seen:
            return
        seen.add(one.id)
        for name, entry in one.inputs.items():
            if entry["kind"] != "raw":
                if _leads_on(one, name):
                    with contextlib.suppress(ArtifactError):
                        visit(one.input(name))
            elif _leads_on(one, name) and (match := DATA_SET.match(lineage.fetched(one, name))):
                found.add(match[1])

    visit(model)
    return sorted(found)


def _leads_on(one: Artifact, name: str) -> bool:
    """Whether an artifact learned of an input, was made of it, or was trained from it."""
    stage, last = one.record["stage"], name.rpartition(".")[2]
    if one.kind == "model" and last == "model":
        return name == last or stage == "merge"
    return last in LEARNED and stage not in ("merge", "pull")
