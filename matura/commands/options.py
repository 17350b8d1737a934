"""Options that several verbs share. The sampling options are written down once, here."""

import inspect
import os
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", help="Where all is kept (default: MATURA_WORKSPACE, else ./workspace)."),
]
ModelArgument = Annotated[str, typer.Argument(help="Path, name, RUN/STAGE, hf:..., pypi:... or an alias.")]

SAMPLING: dict[str, Any] = {
    "max_new_tokens": Annotated[int | None, typer.Option(min=1, help="Stop after this many tokens.")],
    "temperature": Annotated[
        float | None, typer.Option(min=0, help="0 takes the likeliest token each time.")
    ],
    "top_k": Annotated[
        int | None, typer.Option(min=0, help="Sample among the k likeliest tokens; 0 is off.")
    ],
    "top_p": Annotated[
        float | None, typer.Option(min=0, max=1, help="Sample among the likeliest that make up p.")
    ],
    "min_p": Annotated[
        float | None, typer.Option(min=0, max=1, help="Drop what is less likely than p x the best.")
    ],
    "typical_p": Annotated[
        float | None, typer.Option(min=0, max=1, help="Sample among the least surprising that make up p.")
    ],
    "repetition_penalty": Annotated[
        float | None, typer.Option(min=0, help="Above 1 makes repeating less likely.")
    ],
    "presence_penalty": Annotated[
        float | None, typer.Option(help="Subtracted from the scores of tokens the answer has.")
    ],
    "frequency_penalty": Annotated[
        float | None, typer.Option(help="The same, for each time that the answer has them.")
    ],
    "no_repeat_ngram": Annotated[
        int | None, typer.Option(min=0, help="No run of this many tokens comes twice; 0 is off.")
    ],
    "seed": Annotated[int | None, typer.Option(help="The same seed gives the same text.")],
    "stop": Annotated[
        list[str] | None, typer.Option(help="Stop before this text; may be given several times.")
    ],
}
"""Names of `core.settings.Sampling` that can be typed, each as an option."""


def sampled(verb: Callable[..., None]) -> Callable[..., None]:
    """`verb` with the sampling options before its `workspace`; those that are given reach it as the dict `sampling`."""

    def command(**values: Any) -> None:
        sampling = {name: values.pop(name) for name in SAMPLING}
        verb(**values, sampling={name: value for name, value in sampling.items() if value not in (None, [])})

    own = inspect.signature(verb).parameters
    options = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation=option)
        for name, option in SAMPLING.items()
    ]
    first = [parameter for name, parameter in own.items() if name not in ("sampling", "workspace")]
    kept = [
        parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY) for parameter in (*first, own["workspace"])
    ]
    command.__signature__ = inspect.Signature([*kept[:-1], *options, kept[-1]])  # type: ignore[attr-defined]
    command.__name__, command.__doc__ = verb.__name__, verb.__doc__
    return command


def workspace(root: Path | None) -> Any:
    """The workspace to use; a stage that asks for it by itself gets the same one."""
    from matura.core.workspace import Workspace

    if root is not None:
        os.environ["MATURA_WORKSPACE"] = str(root.expanduser().absolute())
    return Workspace()
