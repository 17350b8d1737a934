"""`matura rank`: a person ranks answers, in the terminal or in a page of this machine alone."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from matura.core.artifact import Artifact
from matura.core.errors import MaturaError, ModelNotFound
from matura.core.manifest import RECORD
from matura.core.preferences import HELDOUT, SAMPLES, TRAIN, Ranking, read_rankings
from matura.core.workspace import Workspace

if TYPE_CHECKING:
    from matura.align.ranking.sitting import Sitting

DEFAULT_OUT = "rankings.jsonl"
ROWS = (".jsonl", ".json", ".parquet", ".csv", ".txt", ".gz", ".bz2", ".xz", ".zst")
"""Endings of files of rows; no model is a file of such a name."""
ENOUGH = 10
"""Rankings below which nothing is said of positions."""

Sample = Callable[[list[str]], Artifact]
"""Runs the stage `sample` with settings, and gives what it made."""


@dataclass(frozen=True)
class Asked:
    """What was asked for on the command line; None where nothing was said."""

    source: str
    settings: Sequence[str] = ()
    prompts: str | None = None
    count: int | None = None
    answers: int | None = None
    out: Path | None = None
    trl: Path | None = None
    annotator: str | None = None
    web: bool = False
    port: int | None = None
    seed: int = 0


def by_a_person(asked: Asked, workspace: Workspace, sample: Sample) -> None:
    """Let a person rank; returns when all is judged or the person leaves. Every judgement is kept at once."""
    from matura.align.ranking import items
    from matura.align.ranking.journal import open_journal
    from matura.align.ranking.sitting import Sitting

    if asked.port is not None and not asked.web:
        raise MaturaError("--port is for the page: add --web")
    rows, own = _given(asked, workspace, sample)
    unjudged = [items.unjudged(row, asked.answers) for row in _once(asked.source, rows)]
    journal = open_journal((asked.out or own or Path(DEFAULT_OUT)).expanduser())
    journal.add(unjudged)
    sitting = Sitting(journal, unjudged, _annotator(asked.annotator), asked.seed)
    print(_opening(sitting), flush=True)
    try:
        _serve(sitting, asked.port or 0) if asked.web else _ask(sitting)
    except KeyboardInterrupt:
        print()
    except MaturaError:
        print(_closing(sitting))
        raise
    print(_closing(sitting))
    if asked.trl is not None:
        _export(journal.rows(), asked.trl.expanduser())


def _given(asked: Asked, workspace: Workspace, sample: Sample) -> tuple[list[Ranking], Path | None]:
    """The rows with answers, and the file to go on with when the source is one that this command wrote."""
    from matura.align.ranking.journal import journal_of, open_journal

    path = Path(asked.source).expanduser()
    if path.is_file() and path.suffix == ".jsonl":
        _for_models(asked, f"{path} has answers")
        if journal_of(path).exists():
            return list(open_journal(path).items.values()), path
        return _with_answers(path, read_rankings(path)), None
    try:
        found = workspace.find(asked.source)
    except ModelNotFound:
        _check_no_rows(path)
        found = None  # not here yet: the stage brings it, or says what there is
    if found is None or found.kind == "model":
        found = sample(_sample_settings(asked))
    else:
        _for_models(asked, f"{asked.source} has answers")
    if found.kind not in ("samples", "preferences"):
        raise MaturaError(
            f"{asked.source} is {found.kind}: rank the answers of a model (with --prompts), samples, preferences, or a "
            "file of rankings."
        )
    names = (SAMPLES if found.kind == "samples" else TRAIN, HELDOUT)
    files = [found.path / name for name in names if name in found.record["files"]]
    return _with_answers(found.path, (row for file in files for row in read_rankings(file))), None


def _once(source: str, rows: Iterable[Ranking]) -> list[Ranking]:
    """Each prompt once, whoever judged it. Raises MaturaError for one id with different answers: one would be lost."""
    found: dict[str, Ranking] = {}
    for row in rows:
        if _shown(found.setdefault(row.id, row)) != _shown(row):
            raise MaturaError(
                f"{source}: two rows have the id {row.id!r}, and not the same prompt and answers. Give each its "
                "own id, or leave ids out."
            )
    return list(found.values())


def _shown(row: Ranking) -> object:
    return row.messages, sorted(answer.text for answer in row.answers)


def _check_no_rows(path: Path) -> None:
    """Raises MaturaError for what can only be meant as a file of rows, before it is taken for a model's name."""
    if not any(path.name.endswith(ending) for ending in ROWS):
        return
    if not path.exists():
        raise MaturaError(
            f"{path}: there is no such file. A model answers first: matura rank MODEL --prompts FILE"
        )
    raise MaturaError(
        f"{path}: a person ranks rows of messages with answers, one a line in a file that ends with .jsonl (see "
        "docs/preferences.md). To have a model answer what is asked there: matura rank MODEL --prompts FILE"
    )


def _sample_settings(asked: Asked) -> list[str]:
    """Settings of the stage `sample` for a person, who is asked everything of a file: nothing of it is held out."""
    if asked.prompts is None:
        raise MaturaError(f"{asked.source} is a model: what is it to be asked? --prompts FILE")
    settings = [f"model={asked.source}", f"prompts={asked.prompts}", "heldout=0"]
    settings += [f"count={100 if asked.count is None else asked.count}"]
    path = Path(asked.prompts).expanduser()
    if path.exists() and not (path / RECORD).exists():
        settings.append("data.heldout=0")
    settings += [] if asked.answers is None else [f"k={asked.answers}"]
    return [*settings, *asked.settings]


def _for_models(asked: Asked, why: str) -> None:
    given = {"--prompts": asked.prompts, "--count": asked.count, "settings": asked.settings}
    wrong = [name for name, value in given.items() if value]
    if wrong:
        raise MaturaError(f"{why}, so {' and '.join(wrong)} would do nothing: leave them out.")


def _with_answers(where: Path, rows: Iterator[Ranking]) -> list[Ranking]:
    found = [row for row in rows if row.answers]
    if not found:
        raise MaturaError(
            f"{where} has no answers to rank; a model writes some: matura rank MODEL --prompts FILE"
        )
    return found


def _annotator(given: str | None) -> str:
    import getpass

    name = getpass.getuser() if given is None else given.strip()
    if not name or len(name) > 100 or not name.isprintable():
        raise MaturaError("--annotator: a name of 1 to 100 characters that can be seen.")
    return name


def _ask(sitting: "Sitting") -> None:
    from matura.commands import ranking_terminal

    ranking_terminal.ask(sitting, sys.stdin)


def _serve(sitting: "Sitting", port: int) -> None:
    from matura.align.ranking import guard, server

    listening = server.listen(port)
    port, token = listening.getsockname()[1], guard.new_token()
    print(f"Open http://127.0.0.1:{port}/{token}/ in a browser of this machine. Ctrl-C ends.", flush=True)
    server.serve(server.application(sitting, token, port), listening)


def _opening(sitting: "Sitting") -> str:
    done = sitting.progress()
    before = f", {done.total - done.left:,} are done" if done.left < done.total else ""
    alike = f" {done.alike:,} more have fewer than two different answers." if done.alike else ""
    return f"{sitting.annotator} ranks {done.total:,} prompts{before}; saved in {sitting.journal.rankings}.{alike}"


def _closing(sitting: "Sitting") -> str:
    """What was done, whether positions were preferred, and how far annotators agree."""
    from matura.data.preferences import agreement

    done, bias = sitting.progress(), sitting.bias()
    lines = [f"{done.judged:,} judged, {done.skipped:,} skipped, {done.left:,} left."]
    if bias is not None and bias.rankings >= ENOUGH:
        lines.append(
            f"Of two answers the one shown first was preferred in {bias.share:.0%} of the pairs (95% interval "
            f"{bias.low:.0%} to {bias.high:.0%}, {bias.rankings:,} prompts)"
            + (": the position seems to matter." if bias.biased else ".")
        )
    if (together := agreement.of(sitting.journal.rows())) is not None:
        lines += agreement.describe(together)
    if done.judged:
        lines.append(f"Rankings: {sitting.journal.rankings}")
    return "\n".join(lines)


def _export(rows: list[Ranking], path: Path) -> None:
    from matura.data.preferences import export

    print(f"{export.write_trl(path, rows):,} pairs in TRL's format: {path}")
