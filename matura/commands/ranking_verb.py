"""The verb `rank`, which has two sides.

`matura rank SOURCE` asks a person; `matura rank KEY=VALUE...` is the stage that judges by rewards, like the verb of
every other stage.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from matura.commands.options import WorkspaceOption, workspace
from matura.core.errors import MaturaError

Words = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="SOURCE [KEY=VALUE]...",
        help="A person ranks: a model, samples, preferences or a file of rankings; after a model also settings of "
        "`matura sample`, such as draw.temperature=0.8. Without SOURCE: settings of the stage `rank`.",
        show_default=False,
    ),
]
ABOUT = "Let a person rank answers; or, with settings alone, judge samples by rewards."


def verb(run_stage: Callable[..., Any], stage_help: Callable[[], str]) -> Callable[..., None]:
    """The verb. `run_stage(kind, settings, plan, wait, workspace, name=)` runs a stage and gives what it made."""

    def rank(
        context: typer.Context,
        words: Words = None,
        prompts: Annotated[
            str | None, typer.Option(help="What a model is asked: a file or an artifact.")
        ] = None,
        count: Annotated[
            int | None, typer.Option(min=1, help="Ask a model at most this many prompts (default: 100).")
        ] = None,
        answers: Annotated[
            int | None, typer.Option(min=2, max=9, help="Answers to each prompt (a model's default: 4).")
        ] = None,
        out: Annotated[
            Path | None,
            typer.Option(help="Where rankings are kept (default: rankings.jsonl, or SOURCE itself)."),
        ] = None,
        trl: Annotated[
            Path | None, typer.Option(help="At the end write the pairs there, as TRL reads them.")
        ] = None,
        annotator: Annotated[str | None, typer.Option(help="Who ranks (default: the user's name).")] = None,
        web: Annotated[bool, typer.Option("--web/--terminal", help="In a page, or in the terminal.")] = False,
        port: Annotated[
            int | None,
            typer.Option(min=1, max=65535, help="Of the page, on 127.0.0.1 (default: a free one)."),
        ] = None,
        seed: Annotated[int, typer.Option(min=0, help="Of the order in which answers are shown.")] = 0,
        plan: Annotated[
            bool, typer.Option("--plan", help="The stage alone: only show what would run.")
        ] = False,
        name: Annotated[
            str, typer.Option(help="Name of the run that the stage's results belong to.")
        ] = "adhoc",
        wait: Annotated[bool, typer.Option("--wait", help="Wait while another process uses it.")] = False,
        root: WorkspaceOption = None,
        show_help: Annotated[bool, typer.Option("--help", "-h", help="Show this.")] = False,
    ) -> None:
        given = words or []
        if show_help:
            print(f"{context.get_help()}\n\nThe stage:\n\n{stage_help()}")
            return
        if not given or is_setting(given[0]):
            personal = [prompts, count, answers, out, trl, annotator, port, web or None, seed or None]
            if any(value is not None for value in personal):
                raise MaturaError(
                    "Only `matura rank SOURCE ...` asks a person; say first what is to be ranked."
                )
            run_stage("rank", given, plan, wait, root, name=name)
            return
        if plan:
            raise MaturaError("--plan is for the stage; a person's ranking has no plan.")
        from matura.commands import ranking

        asked = ranking.Asked(
            given[0], given[1:], prompts, count, answers, out, trl, annotator, web, port, seed
        )
        ranking.by_a_person(
            asked,
            workspace(root),
            lambda settings: run_stage("sample", settings, False, wait, root, name=name)["sample"],
        )

    return rank


def is_setting(word: str) -> bool:
    """Whether a word is KEY=VALUE rather than a source, which may have an equals sign when it is a path or a wheel."""
    key, equals, _ = word.partition("=")
    return bool(equals) and key.replace(".", "").replace("_", "").isalnum() and not Path(word).exists()
