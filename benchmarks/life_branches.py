"""A life with one thing left out or spoiled: the stages that are made again for it, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matura.core.errors import MaturaError
from matura.core.rounds import merged, texts

Stages = dict[str, Any]


@dataclass(frozen=True)
class Branch:
    """A life that differs in one thing; the names of its own stages end in `_NAME`.

    `of` is the stage that is examined in the end, `beside` the stage of the whole life that it is compared with.
    `swaps` replaces inputs (stage -> input as it is written -> what stands there instead), `settings` other settings.
    What depends on either is made again, but for the stages of `kept`.
    """

    name: str
    of: str
    beside: str
    swaps: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()

    @property
    def model(self) -> str:
        """The stage that makes what is examined."""
        made_again = self.swaps or self.settings
        return f"{self.of}_{self.name}" if made_again else self.of


def branches(stages: Stages, controls: Path, heldout: tuple[str, ...]) -> list[Branch]:
    """All of them. `controls` is where `life_controls.write` has put its files, `heldout` the raw files of the
    documents that the whole life has held out."""
    if not stages["corpus"].get("path"):
        raise MaturaError("this size reads several sources; the branches need a corpus with one `path`")
    few = max(12, stages["corpus"].get("heldout", 12) // 10)
    left_out = [*stages["corpus"].get("exclude", ()), *(f"/{name}" for name in heldout)]
    with_copies = {"fuzzy": {"use": "off"}, "exact_duplicates": "keep", "exclude": left_out, "heldout": few}
    mixed = {
        "path": str(controls / "mixed_text.parquet"),
        "fuzzy": {"use": "off"},
        "exact_duplicates": "keep",
    }
    preferred = {
        name: {"$preferred": str(controls / "by_lot")} for name in _readers(stages, "preferred", "aligned")
    }
    lessons = {"taught": {"$lessons": str(controls / "mixed_lessons")}}
    return [
        Branch("no_dedup", "aligned", "aligned", settings={"corpus": with_copies}),
        Branch("no_pretraining", "taught", "taught", swaps={"taught": {"$base": "$untrained"}}),
        Branch("no_sft", "aligned", "aligned", swaps={"aligned": {"$taught": "$base"}}),
        Branch("no_alignment", "taught", "aligned"),
        Branch("mixed_lessons", "taught", "taught", swaps=lessons),
        Branch("by_lot", "aligned", "aligned", swaps=preferred),
        Branch(
            "mixed_text",
            "base",
            "base",
            settings={"corpus": mixed | {"include": [], "exclude": [], "heldout": few}},
            kept=frozenset({"tokenizer"}),
        ),
    ]


def again(stages: Stages, branch: Branch) -> Stages:
    """The stages that the branch makes for itself. Raises MaturaError when the recipe has nothing to change there."""
    needed = before(stages, branch.of)
    changed = {name: _changed(stages, name, branch) for name in {**branch.swaps, **branch.settings}}
    made = set(changed) & needed
    while more := {
        name for name in needed - made - branch.kept if made & needs(changed.get(name, stages[name]), stages)
    }:
        made |= more
    new = {f"${name}": f"${name}_{branch.name}" for name in made}
    return {
        f"{name}_{branch.name}": _rewritten(changed.get(name, stages[name]), new)
        for name in stages
        if name in made
    }


def before(stages: Stages, last: str) -> set[str]:
    """A stage and all that it is made from."""
    found, to_see = set(), [last]
    while to_see:
        if (name := to_see.pop()) not in found:
            found.add(name)
            to_see += needs(stages[name], stages)
    return found


def needs(value: Any, stages: Stages) -> set[str]:
    """The stages whose outputs the settings name."""
    return {one[1:] for one in texts(value) if one.startswith("$")} & stages.keys()


def _readers(stages: Stages, name: str, last: str) -> list[str]:
    """The stages on the way to `last` that read what `name` made."""
    return [one for one in stages if one in before(stages, last) and name in needs(stages[one], stages)]


def _changed(stages: Stages, name: str, branch: Branch) -> Any:
    swaps = branch.swaps.get(name, {})
    for old in swaps:
        if name not in stages or old[1:] not in needs(stages[name], stages):
            raise MaturaError(
                f"the recipe has no stage {name} that reads {old}, so {branch.name} changes nothing"
            )
    return merged(_rewritten(stages[name], swaps), branch.settings.get(name, {}))


def _rewritten(value: Any, new: Mapping[str, str]) -> Any:
    """Settings with other inputs. `after` only orders the life's own stages, and is left out."""
    if isinstance(value, dict):
        return {key: _rewritten(one, new) for key, one in value.items() if key != "after"}
    if isinstance(value, list):
        return [_rewritten(one, new) for one in value]
    return new.get(value, value) if isinstance(value, str) else value
