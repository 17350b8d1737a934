"""The options of `matura inspect attention` and `matura inspect tokens`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    help="Look into a model: attention weights, and what it expects at every token.",
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
)

Model = Annotated[str, typer.Argument(help="Path, name, RUN/STAGE, hf:..., pypi:... or an alias.")]
WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", help="Where all is kept (default: MATURA_WORKSPACE, else ./workspace)."),
]
Target = Annotated[
    str | None, typer.Option(help="For an encoder-decoder: what it writes; TEXT is what it reads.")
]
Html = Annotated[Path | None, typer.Option("--html", help="Write a page that needs nothing else.")]
Json = Annotated[Path | None, typer.Option("--json", help='Write all numbers as JSON; "-" is stdout.')]


@app.command()
def attention(
    model: Model,
    text: Annotated[str, typer.Argument(help="What the model reads.")],
    target: Target = None,
    part: Annotated[
        Literal["encoder", "decoder", "cross"] | None,
        typer.Option(help="Whose attention (default: the last of these that there is)."),
    ] = None,
    layer: Annotated[
        list[int] | None, typer.Option(min=0, help="Only this layer, from 0; may be given several times.")
    ] = None,
    head: Annotated[
        list[int] | None, typer.Option(min=0, help="Only this head, from 0; may be given several times.")
    ] = None,
    source: Annotated[
        str | None, typer.Option("--from", help="The token that looks: its text or its position.")
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", help="The token looked at: lists the heads, strongest first.")
    ] = None,
    against: Annotated[
        str | None, typer.Option(help="Another text: how much the weights of --from differ in it.")
    ] = None,
    patterns: Annotated[bool, typer.Option("--patterns", help="List heads that follow a pattern.")] = False,
    no_sink: Annotated[
        bool, typer.Option("--no-sink", help="Drop the weight on sink tokens, bring the rest to 1 again.")
    ] = False,
    top: Annotated[int, typer.Option(min=1, help="Rows of lists.")] = 10,
    limit: Annotated[int, typer.Option(min=1, help="MB of weights at most.")] = 256,
    html: Html = None,
    json: Json = None,
    csv: Annotated[
        Path | None, typer.Option("--csv", help='Write a line for every weight; "-" is stdout.')
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Show which tokens look at which. Without options: the last layer, the mean of its heads."""
    from matura.commands import inspect_attention
    from matura.core.workspace import Workspace

    query = inspect_attention.Query(
        text=text,
        target=target,
        against=against,
        parts=None if part is None else (part,),
        layers=tuple(layer) if layer else None,
        heads=tuple(head) if head else None,
        source=source,
        to=to,
        patterns=patterns,
        sinks=not no_sink,
        top=top,
        limit=limit * 1_000_000,
        html=html,
        json=json,
        csv=csv,
    )
    inspect_attention.run(model, query, None if workspace is None else Workspace(workspace))


@app.command()
def tokens(
    model: Model,
    text: Annotated[str, typer.Argument(help="What the model reads.")],
    target: Target = None,
    other: Annotated[
        str | None, typer.Option("--with", help="A second model with the same vocabulary.")
    ] = None,
    temperature: Annotated[
        float | None, typer.Option(min=0, help="Show what is left at this temperature.")
    ] = None,
    top_k: Annotated[int | None, typer.Option(min=0, help="Show what top-k leaves.")] = None,
    top_p: Annotated[float | None, typer.Option(min=0, max=1, help="Show what top-p leaves.")] = None,
    min_p: Annotated[float | None, typer.Option(min=0, max=1, help="Show what min-p leaves.")] = None,
    typical_p: Annotated[
        float | None, typer.Option(min=0, max=1, help="Show what typical sampling leaves.")
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="Likeliest tokens that are listed.")] = 3,
    html: Html = None,
    json: Json = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Show how likely a model finds every token, what else it expected, and what sampling would cut.

    A masked model is asked for each token with that token masked (a pseudo-log-likelihood).
    """
    from matura.commands import inspect_tokens
    from matura.core.workspace import Workspace

    cut = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "min_p": min_p, "typical_p": typical_p}
    given = {name: value for name, value in cut.items() if value is not None}
    query = inspect_tokens.Query(
        text=text, target=target, other=other, cut=given or None, top=top, html=html, json=json
    )
    inspect_tokens.run(model, query, None if workspace is None else Workspace(workspace))
