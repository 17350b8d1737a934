"""The journal of a rankings file: every answer and every judgement, appended and synced before anything else happens.

`rankings.jsonl.journal` is the truth, `rankings.jsonl` is written anew from it after every judgement. Lines:

    {"journal": "rankings", "version": 1}
    {"item": {...}}        a prompt with its answers, as `core.preferences` writes it
    {"verdict": {"id": ..., "annotator": ..., "ranks": [2, 1, null], "shown": [1, 0, 2], "seconds": ..., "at": ...}}

The last verdict of an annotator on an item counts; no ranks mean that it was skipped. Several processes may use one
journal: each appends under a lock, after it has read what the others wrote.
"""

from __future__ import annotations

import contextlib
import datetime
import fcntl
import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from matura.align.ranking.items import OF_A_JUDGEMENT
from matura.core.errors import FormatError, MaturaError
from matura.core.files import saving, sync
from matura.core.preferences import Ranking, as_line, ranking, write_rankings
from matura.core.records import MAX_LINE_BYTES

SUFFIX = ".journal"
HEAD = {"journal": "rankings", "version": 1}


@dataclass(frozen=True, slots=True)
class Judgement:
    """A verdict as it is kept. `ranks` by answer, none at all: skipped. `shown`: answers in the order of positions."""

    id: str
    annotator: str
    ranks: tuple[int | None, ...]
    shown: tuple[int, ...]
    seconds: float = 0.0
    at: str = ""

    @property
    def skipped(self) -> bool:
        return not self.ranks


@dataclass
class Journal:
    """A rankings file and its journal. Made by `open_journal`."""

    rankings: Path
    path: Path
    items: dict[str, Ranking] = field(default_factory=dict)
    judgements: dict[tuple[str, str], Judgement] = field(default_factory=dict)
    read: int = 0  # bytes of the journal that were read
    lines: int = 0

    def add(self, rows: Iterable[Ranking]) -> None:
        """Keep prompts with their answers. One that is there already must be the same: MaturaError otherwise."""
        with self._locked() as file:
            new: dict[str, Ranking] = {}
            for row in rows:
                if not self._has(row, new):
                    new[row.id] = row
            self._append(file, [{"item": json.loads(self._line(row))} for row in new.values()])
            self.items.update(new)

    def judge(self, judgement: Judgement) -> None:
        """Keep a judgement: when this returns it is on the disk, and in the rankings file.

        Raises ArtifactError when the disk is full: what was kept before is intact.
        """
        with self._locked() as file:
            _check(judgement, self.items, "a judgement")
            self._append(file, [{"verdict": _told(judgement)}])
            self._keep(judgement)
            self._write()

    def judged_by(self, annotator: str) -> dict[str, Judgement]:
        """What this annotator judged or skipped, by id."""
        return {key: one for (key, name), one in self.judgements.items() if name == annotator}

    def rows(self) -> list[Ranking]:
        """The rankings: items in order, those who judged one in the order of their first judgement."""
        by_item: dict[str, list[Judgement]] = {}
        for judgement in self.judgements.values():
            if not judgement.skipped:
                by_item.setdefault(judgement.id, []).append(judgement)
        return [_ranked(row, one) for row in self.items.values() for one in by_item.get(row.id, [])]

    def _write(self) -> None:
        write_rankings(self.rankings, self.rows())

    def _line(self, row: Ranking) -> bytes:
        try:
            return as_line(row)
        except UnicodeEncodeError as error:
            raise FormatError(f"{row.id!r} is not valid Unicode: {error}") from error

    def _has(self, row: Ranking, more: Mapping[str, Ranking]) -> bool:
        known = self.items.get(row.id) or more.get(row.id)
        if known is not None and self._line(known) != self._line(row):
            raise MaturaError(
                f"{self.rankings} has other answers to the prompt {row.id!r}: another model or other settings wrote "
                "them. Keep these rankings apart: --out FILE."
            )
        return known is not None

    def _keep(self, judgement: Judgement) -> None:
        self.judgements[judgement.id, judgement.annotator] = judgement

    @contextlib.contextmanager
    def _locked(self) -> Iterator[int]:
        """The journal, opened and locked, with all that others wrote read and half a line of a crash cut off."""
        file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._catch_up(file)
            yield file
        finally:
            os.close(file)

    def _catch_up(self, file: int) -> None:
        size = os.fstat(file).st_size
        if size < self.read:
            raise MaturaError(f"{self.path} became shorter while it was in use; start again.")
        with open(self.path, "rb") as journal:
            journal.seek(self.read)
            while line := journal.readline(MAX_LINE_BYTES + 1):
                if not line.endswith(b"\n"):
                    if len(line) > MAX_LINE_BYTES:
                        raise FormatError(f"{self.path}:{self.lines + 1}: the line is too long.")
                    os.ftruncate(
                        file, self.read
                    )  # a crash in the middle of a line, which nobody was told is kept
                    break
                self.lines += 1
                self._take(line, f"{self.path}:{self.lines}")
                self.read += len(line)

    def _take(self, line: bytes, where: str) -> None:
        try:
            event = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise FormatError(f"{where}: not valid JSON: {error}") from error
        match event:
            case {"item": row, **more} if not more:
                item = ranking(row, where, "")
                self.items[item.id] = item
            case {"verdict": verdict, **more} if not more:
                self._keep(_check(_judgement(verdict, where), self.items, where))
            case _ if self.lines == 1 and event == HEAD:
                pass
            case _:
                raise FormatError(f"{where}: this is no line of a journal of rankings of version 1.")
        if self.lines == 1 and event != HEAD:
            raise FormatError(f"{where}: a journal of rankings begins with {json.dumps(HEAD)}.")

    def _append(self, file: int, events: list[Mapping[str, Any]]) -> None:
        """Write whole lines at the end and sync them; on failure the journal is as it was."""
        lines = [HEAD, *events] if not self.read else events
        if not lines:
            return
        data = b"".join(json.dumps(one, ensure_ascii=False).encode() + b"\n" for one in lines)
        try:
            with saving(self.path.name, self.path.parent):
                os.lseek(file, self.read, os.SEEK_SET)
                _write_all(file, data)
                os.fsync(file)
                if not self.read:
                    sync(self.path.parent)
        except BaseException:
            os.ftruncate(file, self.read)
            raise
        self.read += len(data)
        self.lines += len(lines)


def open_journal(rankings: Path) -> Journal:
    """The journal of a rankings file, with all that it holds; both are made when they are not there, and the rankings
    file is written anew if a crash kept it from being so.

    Raises MaturaError for a rankings file that has no journal (it is somebody's own), FormatError for a journal that
    is broken elsewhere than in its last line.
    """
    journal = Journal(rankings, journal_of(rankings))
    if rankings.exists() and not journal.path.exists():
        raise MaturaError(
            f"{rankings} is there, but no {journal.path.name} beside it: `matura rank` did not write it and will not "
            "replace it. Choose another --out."
        )
    with saving(journal.path.name, journal.path.parent):
        journal.path.parent.mkdir(parents=True, exist_ok=True)
    journal.add([])
    with journal._locked():
        journal._write()
    return journal


def journal_of(rankings: Path) -> Path:
    """Where the journal of a rankings file is."""
    return rankings.with_name(rankings.name + SUFFIX)


def now() -> str:
    """The time as it stands in a judgement."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _write_all(file: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(file, view) :]


def _ranked(row: Ranking, judgement: Judgement) -> Ranking:
    answers = tuple(
        replace(answer, rank=rank) for answer, rank in zip(row.answers, judgement.ranks, strict=True)
    )
    told = (" ".join(map(str, judgement.shown)), f"{judgement.seconds:.1f}", judgement.at)
    provenance = {**row.provenance, **dict(zip(OF_A_JUDGEMENT, told, strict=True))}
    return replace(row, answers=answers, annotator=judgement.annotator, provenance=provenance)


def _told(judgement: Judgement) -> dict[str, Any]:
    return {
        "id": judgement.id,
        "annotator": judgement.annotator,
        "ranks": list(judgement.ranks),
        "shown": list(judgement.shown),
        "seconds": round(judgement.seconds, 1),
        "at": judgement.at,
    }


def _judgement(row: object, where: str) -> Judgement:
    match row:
        case {
            "id": str(key),
            "annotator": str(annotator),
            "ranks": [*ranks],
            "shown": [*shown],
            "seconds": int() | float() as seconds,
            "at": str(at),
            **more,
        } if not more and all(map(_whole, [*shown, *(one for one in ranks if one is not None)])):
            return Judgement(key, annotator, tuple(ranks), tuple(shown), float(seconds), at)
    raise FormatError(
        f"{where}: a verdict has id, annotator, ranks, shown, seconds and at, of the right types."
    )


def _whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check(judgement: Judgement, items: Mapping[str, Ranking], where: str) -> Judgement:
    """The judgement, if it fits its item. Raises FormatError that begins with `where`."""
    row = items.get(judgement.id)
    if row is None:
        raise FormatError(f"{where}: nothing is known of the prompt {judgement.id!r}.")
    many = len(row.answers)
    if sorted(judgement.shown) != list(range(many)):
        raise FormatError(f"{where}: shown must be the numbers of the {many} answers, in some order.")
    ranked = [rank for rank in judgement.ranks if rank is not None]
    if judgement.ranks and (len(judgement.ranks) != many or any(rank < 1 for rank in ranked)):
        raise FormatError(f"{where}: ranks must be none, or one for each of {many} answers, 1 is the best.")
    return judgement
