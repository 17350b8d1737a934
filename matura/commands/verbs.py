"""The verbs that use a model: their arguments and options. `VERBS` is what the command line offers."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from matura.commands.options import ModelArgument, WorkspaceOption, sampled, workspace

Text = Annotated[str, typer.Argument(help='The text; "-" reads it from stdin.')]

PromptOption = Annotated[
    str | None,
    typer.Option(
        "--prompt", help="What `matura prompt` made, or a prompt.yaml, to put around what is asked."
    ),
]


@sampled
def generate(
    model: ModelArgument,
    prompt: Annotated[str, typer.Argument(help='The text to go on from; "-" reads it from stdin.')],
    beams: Annotated[
        int | None, typer.Option(min=1, help="Search for the likeliest answer with this many beams.")
    ] = None,
    length_penalty: Annotated[
        float | None, typer.Option(help="With --beams: above 0 favours long answers, below 0 short ones.")
    ] = None,
    around: PromptOption = None,
    *,
    sampling: dict[str, Any],
    workspace: WorkspaceOption = None,
) -> None:
    """Continue a text; an encoder-decoder answers it. What is not given comes from the model's own defaults."""
    from matura.commands import talking

    searching = {"beams": beams, "length_penalty": length_penalty}
    given = {name: value for name, value in searching.items() if value is not None}
    _use(workspace)
    talking.generate(model, prompt, sampling | given, around)


@sampled
def chat(
    model: ModelArgument,
    system: Annotated[str | None, typer.Option(help="A system message to open with.")] = None,
    around: PromptOption = None,
    *,
    sampling: dict[str, Any],
    workspace: WorkspaceOption = None,
) -> None:
    """Talk with a model in the terminal. What is not given comes from the model's own defaults."""
    from matura.commands import talking

    _use(workspace)
    talking.chat(model, system, sampling, around)


def fill(
    model: ModelArgument,
    text: Annotated[str, typer.Argument(help='A text with [MASK] in it; "-" reads it from stdin.')],
    top_k: Annotated[int, typer.Option(min=1, help="Fills for each mask.")] = 5,
    workspace: WorkspaceOption = None,
) -> None:
    """Fill the masks of a text with the likeliest tokens (BERT and its relatives)."""
    from matura.commands import reading

    _use(workspace)
    reading.fill(model, text, top_k)


def embed(
    model: ModelArgument,
    texts: Annotated[list[str], typer.Argument(metavar="TEXT", help='Texts; "-" reads lines from stdin.')],
    pool: Annotated[
        Literal["mean", "first", "last", "cls"],
        typer.Option(help="Which tokens' states become the vector; cls is another name of first."),
    ] = "mean",
    normalize: Annotated[bool, typer.Option(help="Bring vectors to length one.")] = True,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Read this much of a text (default: 256, at most the context).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print every vector whole, as JSON.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Turn texts into vectors, for search and comparison."""
    from matura.commands import reading

    _use(workspace)
    reading.embed(model, texts, as_json=as_json, pool=pool, normalize=normalize, max_tokens=max_tokens)


def classify(
    model: ModelArgument,
    texts: Annotated[
        list[str] | None,
        typer.Argument(metavar="TEXT", help='Texts; "-" reads lines from stdin.', show_default=False),
    ] = None,
    file: Annotated[
        Path | None, typer.Option(help="Read texts from here: lines, or the `text` of the rows of a .jsonl.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Labels of each text, likeliest first.")] = 1,
    max_tokens: Annotated[
        int | None, typer.Option(min=1, help="Read this much of a text (default: the context).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON Lines of text and scores.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Tell the labels of texts, with a model that was trained on labelled ones."""
    from matura.commands import reading

    _use(workspace)
    reading.classify(model, texts or [], file, top_k=top_k, as_json=as_json, max_tokens=max_tokens)


def score(
    model: ModelArgument,
    text: Text,
    continuation: Annotated[
        str | None, typer.Option(help="Score this text, which follows TEXT, with the space before it.")
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Tell how likely a text is: log-probability, perplexity, bits per byte.

    A text longer than the context is read in windows of the context's size, and every token is scored once.
    """
    from matura.commands import reading

    _use(workspace)
    reading.score(model, text, continuation)


VERBS = (generate, chat, fill, embed, classify, score)


def _use(root: Path | None) -> None:
    workspace(root)
