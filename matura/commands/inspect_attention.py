"""`matura inspect attention`: numbers on the terminal, pages and tables in files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.commands.tables import columns, one_stdout, plain, print_table, quoted, save, width
from matura.core.errors import MaturaError
from matura.core.workspace import Workspace

if TYPE_CHECKING:
    from matura.api import LanguageModel
    from matura.inspect.attention import Attentions, Part
    from matura.inspect.heads import Found

STRONGEST = 5  # keys of a token that are listed when the whole row does not fit the terminal
NOTE = "Attention is not explanation: a weight says what was mixed, not why the model answered."


@dataclass(frozen=True)
class Query:
    """What is asked of `matura inspect attention`; None is: not given."""

    text: str
    target: str | None = None
    against: str | None = None
    parts: tuple[Part, ...] | None = None
    layers: tuple[int, ...] | None = None
    heads: tuple[int, ...] | None = None
    source: str | None = None
    """The token that looks."""
    to: str | None = None
    """The token that is looked at."""
    patterns: bool = False
    sinks: bool = True
    top: int = 10
    limit: int = 256_000_000
    html: Path | None = None
    json: Path | None = None
    csv: Path | None = None

    @property
    def everything(self) -> bool:
        """Whether all layers are wanted, not only the one that is printed."""
        return self.files or self.patterns or self.to is not None or self.against is not None

    @property
    def files(self) -> bool:
        """Whether something is to be written."""
        return bool(self.html or self.json or self.csv)


def run(reference: str, query: Query, workspace: Workspace | None = None) -> None:
    """Print or write the attention weights of a text. Raises MaturaError for what is not there, or too large."""
    from matura import api
    from matura.inspect import attention as recording

    _check(query)
    model = api.load(reference, workspace=workspace)
    given = _inputs(model, query.text, query.target)
    chosen = query.parts or (None if query.files else recording.parts(given)[-1:])
    layers = query.layers
    if layers is None and not query.everything:
        last = (chosen or recording.parts(given))[-1]
        layers = (recording.stack_of(model.model.config, last).layers - 1,)
    settings: dict[str, Any] = {"only": chosen, "layers": layers, "heads": query.heads, "limit": query.limit}
    found = recording.record(model.model, given, **settings)
    _write(found, query, reference)
    if query.against is not None:
        other = _inputs(model, query.against, query.target)
        _show_difference(found[-1], recording.record(model.model, other, **settings)[-1], query)
    elif query.patterns:
        _show_patterns(found[-1], query)
    elif query.to is not None:
        _show_finder(found[-1], query)
    elif query.source is not None or not query.files:
        _show_matrix(found[-1], query)


def _check(query: Query) -> None:
    one_stdout(html=query.html, json=query.json, csv=query.csv)
    views = [("--to", query.to), ("--against", query.against), ("--patterns", query.patterns or None)]
    chosen = [name for name, value in views if value is not None]
    if len(chosen) > 1:
        raise MaturaError(f"{' and '.join(chosen)} are different views; choose one of them")
    if chosen and chosen != ["--patterns"] and query.source is None:
        raise MaturaError(f"{chosen[0]} needs --from: the token that looks")
    if chosen == ["--patterns"] and query.source is not None:
        raise MaturaError("--patterns is about all tokens; leave --from out")


def _inputs(model: LanguageModel, text: str, target: str | None) -> Any:
    from matura.inspect.reading import inputs

    return inputs(model.model.config, model.tokenizer, text, target)


def _write(found: Sequence[Attentions], query: Query, reference: str) -> None:
    """Write the files that were asked for."""
    from matura.inspect.page import attention_page
    from matura.inspect.reading import pick

    if query.html:
        ends = {"from": (query.source, found[0].queries), "to": (query.to, found[0].keys)}
        start = {name: pick(end.labels, token) for name, (token, end) in ends.items() if token is not None}
        save(query.html, attention_page(found, reference, query.text, start | {"drop": not query.sinks}))
    kept = [(one, *_weights(one, query.sinks)) for one in found]
    if query.json:
        parts = [
            {
                "part": one.part,
                "layers": one.layers,
                "heads": one.heads,
                "queries": one.queries.labels,
                "keys": one.keys.labels,
                "removed": None if removed is None else removed.tolist(),
                "weights": weights.tolist(),
            }
            for one, weights, removed in kept
        ]
        save(query.json, json.dumps({"model": reference, "text": query.text, "note": NOTE, "parts": parts}))
    if query.csv:
        save(query.csv, _table_of(kept))


def _table_of(kept: Sequence[tuple[Attentions, Any, Any]]) -> str:
    """One line for every weight."""
    out = io.StringIO()
    rows = csv.writer(out, lineterminator="\n")
    rows.writerow(["part", "layer", "head", "from", "from_token", "to", "to_token", "weight"])
    for one, weights, _ in kept:
        for layer, by_head in zip(one.layers, weights.tolist(), strict=True):
            for head, matrix in zip(one.heads, by_head, strict=True):
                for query, row in enumerate(matrix):
                    for key, weight in enumerate(row):
                        names = (query, one.queries.labels[query], key, one.keys.labels[key])
                        rows.writerow([one.part, layer, head, *names, f"{weight:.7g}"])
    return out.getvalue()


def _weights(one: Attentions, sinks: bool) -> tuple[Any, Any]:
    """The weights, and what was removed with the sinks (None when they stay)."""
    from matura.inspect.heads import without_sinks

    return (one.weights_LHTS, None) if sinks else without_sinks(one.weights_LHTS, one.keys.sinks)


def _show_matrix(one: Attentions, query: Query) -> None:
    """The weights of the last chosen layer, the mean over the chosen heads: all of them, or of one token."""
    from rich.table import Table

    from matura.inspect.reading import pick, shown

    weights, removed = _weights(one, query.sinks)
    matrix = weights[-1].mean(0).tolist()
    gone = None if removed is None else removed[-1].mean(0).tolist()
    heads = f"head {one.heads[0]}" if len(one.heads) == 1 else f"mean of {len(one.heads)} heads"
    at = None if query.source is None else pick(one.queries.labels, query.source)
    print(f"{one.part} attention, layer {one.layers[-1]}, {heads}")
    table = Table()
    labels = [shown(label) for label in one.keys.labels]
    if at is not None:
        row = matrix[at]
        columns(table, "position", "to", "weight")
        for key in sorted(range(len(row)), key=lambda key: -row[key])[: query.top]:
            table.add_row(str(key), plain(labels[key]), f"{row[key]:.3f}")
    elif sum(max(5, len(label)) + 3 for label in labels) + 20 <= width():
        columns(table, "from \\ to", *labels, *([] if gone is None else ["removed"]))
        for i, row in enumerate(matrix):
            more = [] if gone is None else [f"{gone[i]:.3f}"]
            table.add_row(plain(shown(one.queries.labels[i])), *(f"{weight:.3f}" for weight in row), *more)
    else:
        columns(table, "position", "from", "to: the strongest", *([] if gone is None else ["removed"]))
        for i, row in enumerate(matrix):
            best = sorted(range(len(row)), key=lambda key: -row[key])[:STRONGEST]
            listed = "  ".join(f"{labels[key]} {row[key]:.3f}" for key in best if row[key] > 0)
            more = [] if gone is None else [f"{gone[i]:.3f}"]
            table.add_row(str(i), plain(shown(one.queries.labels[i])), plain(listed), *more)
    print_table(table)
    print(NOTE)


def _show_finder(one: Attentions, query: Query) -> None:
    """Heads sorted by the weight between two tokens."""
    from matura.inspect.heads import between
    from matura.inspect.reading import pick

    assert query.source is not None
    assert query.to is not None
    at, key = pick(one.queries.labels, query.source), pick(one.keys.labels, query.to)
    weights, removed = _weights(one, query.sinks)
    found = between(replace(one, weights_LHTS=weights), at, key)
    mean = sum(head.weight for head in found) / len(found)
    first = sum(head.strongest == key for head in found)
    names = f"{quoted(one.queries.labels[at], at)} to {quoted(one.keys.labels[key], key)}"
    print(
        f"{one.part} attention from {names}: {mean:.3f} on average; strongest in {first} of {len(found)} heads"
    )
    lost = {
        (layer, head): float(removed[i, j, at])
        for i, layer in enumerate(one.layers)
        for j, head in enumerate(one.heads)
        if removed is not None
    }
    _heads(one, found[: query.top], "weight", "strongest key", lost)
    print(NOTE)


def _show_difference(one: Attentions, other: Attentions, query: Query) -> None:
    """How much the row of a token changes when the text does."""
    from matura.inspect.heads import difference
    from matura.inspect.reading import pick

    assert query.source is not None
    at = pick(one.queries.labels, query.source)
    one, other = (replace(each, weights_LHTS=_weights(each, query.sinks)[0]) for each in (one, other))
    found = difference(one, other, at)
    who = quoted(one.queries.labels[at], at)
    if found[0].weight == 0:
        print(f"{one.part} attention from {who}: identical in all {len(found)} heads, whichever text it is")
        return
    changed = sum(head.weight > 0.01 for head in found)
    print(
        f"{one.part} attention from {who}: changes by up to {found[0].weight:.3g}; by more than 0.01 in {changed} "
        f"of {len(found)} heads"
    )
    _heads(one, found[: query.top], "change", "at the key", {})


def _heads(
    one: Attentions, found: Sequence[Found], what: str, where: str, removed: dict[tuple[int, int], float]
) -> None:
    from rich.table import Table

    from matura.inspect.reading import shown

    table = Table()
    columns(table, "layer", "head", what, where, *(["removed"] if removed else []))
    for head in found:
        key = plain(f"{head.strongest} {shown(one.keys.labels[head.strongest])}")
        more = [f"{removed[head.layer, head.head]:.3f}"] if removed else []
        table.add_row(str(head.layer), str(head.head), f"{head.weight:.3f}", key, *more)
    print_table(table)


def _show_patterns(one: Attentions, query: Query) -> None:
    """The heads that follow a pattern most closely."""
    from rich.table import Table

    from matura.inspect.heads import PATTERNS, patterns

    scores = patterns(replace(one, weights_LHTS=_weights(one, query.sinks)[0]))
    if not scores:
        raise MaturaError("no token of this text can follow a pattern; they need two tokens of one text")
    for name, score_LH in scores.items():
        print(f"{name}: mean weight {PATTERNS[name]}")
        table = Table()
        columns(table, "layer", "head", "score")
        for at in score_LH.flatten().argsort(descending=True)[: query.top].tolist():
            i, j = divmod(at, score_LH.shape[1])
            table.add_row(str(one.layers[i]), str(one.heads[j]), f"{float(score_LH[i, j]):.3f}")
        print_table(table)
    if missing := [name for name in PATTERNS if name not in scores]:
        print(f"Not in this text: {', '.join(missing)} (no token comes twice).")
