"""From artifacts and files to checked rankings on two sides: to learn from, and held out."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from matura.core.artifact import Artifact
from matura.core.errors import ConfigError, FormatError
from matura.core.preference_settings import FOR_FILES, PreferenceData
from matura.core.preferences import HELDOUT, SAMPLES, TRAIN, Ranking, read_rankings
from matura.core.raw import RawInput
from matura.data.conversations import files, rows
from matura.data.conversations.files import Bad
from matura.data.conversations.messages import check_json, text
from matura.data.preferences import forms, sides, trees
from matura.data.preferences.forms import COLUMNS, Dropped

UNJUDGED = "nothing says which answer is better"
Found = Ranking | Dropped
Reader = Callable[[str, Mapping[str, Any], str], Iterator[Found]]
"""(form, values, place) -> what a row holds."""


@dataclass(frozen=True)
class Loaded:
    """Both sides, in the order of the files; the form of each file; the bad rows: (place, what is wrong); and counts
    of what was read: `rankings`, `heldout_rankings`, `bad_rows`, and `dropped` with one count for each reason."""

    train: tuple[Ranking, ...]
    heldout: tuple[Ranking, ...]
    forms: dict[str, str] = field(default_factory=dict)
    bad: tuple[Bad, ...] = ()
    found: dict[str, Any] = field(default_factory=dict)


def load(given: Artifact | RawInput, settings: PreferenceData) -> Loaded:
    """Judged rankings: the two sides of a `preferences` or `samples` artifact; those of files are split here.

    Rows that are in order and say nothing of what is preferred (chosen equals rejected, nothing was judged) are dropped
    and counted. In a folder, files named test, validation, dev, ... are held out.

    Raises FormatError for bad rows, with what is wrong, where first, and how many they are (unless they are to be
    dropped), for a broken file, and when no ranking is left; ConfigError for settings that do nothing here.
    """
    if settings.form == "prompts":
        raise ConfigError("data.form: prompts alone say nothing of what is preferred")
    if isinstance(given, RawInput):
        return load_files(given.path, settings)
    check_settings(given, settings)
    kept = [keep_judged(list(side)) for side in artifact_sides(given)]
    dropped = sum((one for _, one in kept), Counter[str]())
    return done(str(given.path), [one for one, _ in kept], settings.heldout, dropped)


def load_files(root: Path, settings: PreferenceData) -> Loaded:
    """Judged rankings of a file or a folder; see `load`."""
    seen: dict[str, str] = {}
    held, bad, apart, dropped = read_files(root, settings, seen, forms.form_of, forms.read, "preference")
    kept = [keep_judged(side) for side in held]
    dropped += sum((one for _, one in kept), Counter())
    rankings = [one for one, _ in kept]
    loaded = done(str(root), rankings if apart else rankings[:1], settings.heldout, dropped)
    return replace(loaded, forms=seen, bad=tuple(bad), found=loaded.found | {"bad_rows": len(bad)})


def keep_judged(rankings: Sequence[Ranking]) -> tuple[list[Ranking], Counter[str]]:
    """The rankings that say anything, and a count of the others."""
    kept = [row for row in rankings if is_judged(row)]
    left = len(rankings) - len(kept)
    return kept, Counter({UNJUDGED: left} if left else {})


def is_judged(row: Ranking) -> bool:
    """Whether a ranking says anything: two ranks, or one score or thumb."""
    alone = any(one.score is not None or one.liked is not None for one in row.answers)
    return alone or sum(one.rank is not None for one in row.answers) >= 2


def done(name: str, held: Sequence[Sequence[Ranking]], heldout: int, dropped: Counter[str]) -> Loaded:
    """Rankings that have two sides, or one that is split here. Raises FormatError when there are none to learn from."""
    if not held[0]:
        raise nothing(name, dropped)
    return in_sides(held, heldout, dropped)


def nothing(name: str, dropped: Counter[str]) -> FormatError:
    """There are no rows, and what became of those that were there."""
    why = "".join(f"; {count:,} were dropped: {reason}" for reason, count in dropped.items())
    return FormatError(f"{name}: there are no rows to learn from{why}")


def in_sides(held: Sequence[Sequence[Ranking]], heldout: int, dropped: Counter[str]) -> Loaded:
    """Rankings that have two sides, or one that is split here."""
    train, out = (tuple(held[0]), tuple(held[1])) if len(held) == 2 else sides.split(held[0], heldout)
    counts = {"rankings": len(train) + len(out), "heldout_rankings": len(out), "bad_rows": 0}
    return Loaded(train, out, found=counts | {"dropped": dict(sorted(dropped.items()))})


def artifact_sides(given: Artifact) -> list[Iterator[Ranking]]:
    """The rankings of an artifact on its two sides."""
    names = (SAMPLES if given.kind == "samples" else TRAIN, HELDOUT)
    return [read_rankings(given.file(name)) for name in names]


def check_settings(given: Artifact, settings: PreferenceData) -> None:
    """Raises ConfigError for settings of files that were given beside an artifact."""
    default = PreferenceData()
    for name in (*FOR_FILES, "heldout"):
        if getattr(settings, name) != getattr(default, name):
            what = "rows that are split here" if name == "heldout" else "files of rows"
            raise ConfigError(f"data.{name} is for {what}, and {given.path} holds {given.kind}")


def read_files(
    root: Path,
    settings: PreferenceData,
    seen: dict[str, str],
    form_of: Callable[[Mapping[str, Any]], str],
    reader: Reader,
    what: str,
) -> tuple[list[list[Ranking]], list[Bad], bool, Counter[str]]:
    """All rankings of files: (to learn from, held out by a file's name), bad rows, whether files were held out, and
    what was dropped. The form of each file is noted in `seen`."""
    files.check_columns(settings.columns, COLUMNS)
    found = files.read(
        root, lambda name, path: _file(name, path, settings, seen, form_of, reader), what, settings.bad_rows
    )
    dropped = Counter(one.why for side in found.sides.values() for one in side if isinstance(one, Dropped))
    held = [[one for one in found.sides[out] if isinstance(one, Ranking)] for out in (False, True)]
    return held, found.bad, found.apart, dropped


def _file(
    name: str,
    path: Path,
    settings: PreferenceData,
    seen: dict[str, str],
    form_of: Callable[[Mapping[str, Any]], str],
    reader: Reader,
) -> Iterator[Found | Bad]:
    """What the rows of one file hold. Messages of trees, which refer to one another, are gathered first."""
    messages: list[tuple[str, Mapping[str, Any]]] = []
    for row in rows.read(name, path, COLUMNS.union(settings.columns.values(), settings.facts)):
        if row.values is None:
            yield row.place, row.problem
            continue
        try:
            values = files.renamed(row.values, settings.columns)
            if name not in seen:
                seen[name] = settings.form if settings.form != "auto" else form_of(values)
            if seen[name] == "oasst_messages":
                messages.append((row.place, values))
                continue
            facts = _facts(values, settings.facts)
            made = list(reader(seen[name], values, row.place))
        except FormatError as error:
            yield row.place, str(error)
            continue
        for one in made:
            yield replace(one, facts=one.facts | facts) if facts and isinstance(one, Ranking) else one
    yield from trees.from_messages(messages)


def _facts(values: Mapping[str, Any], names: Sequence[str]) -> dict[str, str]:
    """The columns that reward functions may read, as texts; what is no text as JSON."""
    made = {}
    for name in names:
        if name not in values:
            raise FormatError(f"data.facts: there is no column {name!r}, but {', '.join(values)}")
        if (value := values[name]) is not None:
            check_json(value, name)
            made[name] = (
                text(value, name) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            )
    return made
