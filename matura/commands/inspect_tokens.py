"""`matura inspect tokens`: what a model expected at every token, in colours, as a page or as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from matura.commands.tables import columns, one_stdout, plain, print_table, save
from matura.core.errors import MaturaError
from matura.core.workspace import Workspace

if TYPE_CHECKING:
    from matura.api import LanguageModel
    from matura.core.settings import Sampling
    from matura.inspect.reading import Inputs
    from matura.inspect.tokens import Expectation, Expectations

HEAT = (15, 30, 40, 52, 64, 76, 88, 100)  # red of the background, by level of surprise


@dataclass(frozen=True)
class Query:
    """What is asked of `matura inspect tokens`; `cut` are sampling settings that were given."""

    text: str
    target: str | None = None
    other: str | None = None
    cut: dict[str, Any] | None = None
    top: int = 3
    html: Path | None = None
    json: Path | None = None


def run(reference: str, query: Query, workspace: Workspace | None = None) -> None:
    """Print or write what a model expected at every token, alone or beside a second one."""
    from matura import api
    from matura.core import config
    from matura.core.settings import Sampling
    from matura.inspect.page import tokens_page
    from matura.inspect.tokens import expectations, same_vocabulary

    one_stdout(html=query.html, json=query.json)
    sampling: Sampling | None = config.parse(Sampling, query.cut, "sampling") if query.cut else None
    model = api.load(reference, workspace=workspace)
    given = _inputs(model, query)
    second = None if query.other is None else api.load(query.other, workspace=workspace)
    if second is not None:
        same_vocabulary(model.tokenizer, second.tokenizer, (model.model, second.model))
        if _inputs(second, query) != given:
            raise MaturaError("the two models read this text as different tokens, so they cannot be compared")
    other = None if second is None else second.model
    found = expectations(model.model, model.tokenizer, given, top=query.top, sampling=sampling, other=other)
    name = reference if query.other is None else f"{reference} and {query.other}"
    if query.html:
        text = query.text if query.target is None else f"{query.text} → {query.target}"
        save(query.html, tokens_page(found, name, text, query.cut or {}))
    if query.json:
        save(query.json, json.dumps(_record(found, reference, query), allow_nan=False))
    if not (query.html or query.json):
        _show_tokens(found, query.text if query.target is None else query.target)


def _inputs(model: LanguageModel, query: Query) -> Inputs:
    from matura.inspect.reading import inputs

    begin = model.format.begin_id
    return inputs(model.model.config, model.tokenizer, query.text, query.target, begin=begin)


def _record(found: Expectations, reference: str, query: Query) -> dict[str, Any]:
    return {
        "model": reference,
        "with": query.other,
        "text": query.text,
        "target": query.target,
        "sampling": query.cut,
        "pseudo": found.pseudo,
        "given": found.given,
        "perplexity": found.perplexity,
        "bits_per_token": found.surprisal,
        "kl": found.kl,
        "tokens": [asdict(one) for one in found.tokens],
    }


def _show_tokens(found: Expectations, read: str) -> None:
    """The coloured text, a row for every token, and the sum."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from matura.inspect.reading import shown
    from matura.inspect.tokens import level, separator

    text, between = Text(), separator(found, read)
    for one in found.tokens:
        style = f"on rgb({HEAT[level(one.surprisal)]},20,20)" if level(one.surprisal) else ""
        text.append("".join(letter if letter.isprintable() else shown(letter) for letter in one.text), style)
        text.append(between)
    Console(highlight=False, soft_wrap=True).print(text)
    table = Table()
    cut, compared = found.tokens[0].cut is not None, found.tokens[0].kl is not None
    names = ["#", "token", "p", "rank", "surprisal", "entropy"]
    names += ["kept", "share", "drawn"] if cut else []
    names += ["second", "KL"] if compared else []
    columns(table, *names, "likeliest")
    for one in found.tokens:
        table.add_row(*_row(one), style="dim" if one.cut and not one.cut.chance else "")
    print_table(table)
    if found.given:
        print(f"Read, but not asked for: {'  '.join(shown(label) for label in found.given)}")
    what = "Pseudo-perplexity (every token masked in turn)" if found.pseudo else "Perplexity"
    print(f"{what} {found.perplexity:.2f}, {found.surprisal:.2f} bits per token, {len(found.tokens)} tokens")
    if compared:
        print(f"Second model {found.other_perplexity:.2f}; KL(first || second) {found.kl:.4f} bits per token")


def _row(one: Expectation) -> list[Any]:
    from matura.inspect.reading import shown

    cells = [str(one.position), plain(shown(one.text)), f"{one.probability:.4f}", str(one.rank)]
    cells += [f"{one.surprisal:.2f}", f"{one.entropy:.2f}"]
    if one.cut is not None:
        cells += [str(one.cut.tokens), f"{one.cut.share:.1%}", f"{one.cut.chance:.4f}"]
    if one.kl is not None:
        cells += [f"{one.other:.4f}", f"{one.kl:.4f}"]
    likeliest = "  ".join(f"{shown(other.text)} {other.probability:.2f}" for other in one.alternatives)
    return [*cells, plain(likeliest)]
