"""The command line: a verb for each stage, and others. What a verb needs is imported when it runs."""

import importlib
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer

import matura
from matura.commands import inspect_app, ranking_verb, verbs
from matura.commands.options import ModelArgument, WorkspaceOption
from matura.commands.options import workspace as use_workspace
from matura.core.errors import MaturaError

STAGES = {
    "curate": "matura.stages.curate",
    "synthesize": "matura.stages.synthesize",
    "prompt": "matura.stages.prompt",
    "tokenizer": "matura.stages.tokenizer",
    "encode": "matura.stages.encode",
    "pretrain": "matura.stages.pretrain",
    "finetune": "matura.stages.finetune",
    "merge": "matura.stages.merge",
    "sample": "matura.stages.sample",
    "rank": "matura.stages.rank",
    "reward": "matura.stages.reward",
    "dpo": "matura.stages.dpo",
    "ppo": "matura.stages.ppo",
    "grpo": "matura.stages.grpo",
    "evaluate": "matura.stages.evaluate",
    "export": "matura.stages.export",
}
ABOUT = {
    "curate": "Turn a folder of documents into a corpus.",
    "synthesize": "Let a model write text of its own, for replay.",
    "prompt": "Make a prompt: system text, template and examples, as files.",
    "tokenizer": "Train a tokenizer on corpora.",
    "encode": "Turn a corpus into token shards.",
    "pretrain": "Train a model from first weights on token shards.",
    "finetune": "Train a model on a corpus or on conversations.",
    "reward": "Train a reward model on what people preferred.",
    "dpo": "Make a model prefer what people prefer, without a reward model.",
    "ppo": "Let a model practise what rewards ask for, near the model that it was.",
    "grpo": "Let a model practise on tasks whose answers can be checked.",
    "merge": "Fold an adapter into its base model.",
    "sample": "Let a model answer prompts several times, to be ranked.",
    "rank": ranking_verb.ABOUT,
    "evaluate": "Examine a model against its parent.",
    "export": "Write a model for other programs: Hugging Face folder or GGUF.",
}

app = typer.Typer(
    help="Take a language model through its whole education: from raw text to an examined assistant.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.add_typer(inspect_app.app, name="inspect")

PlanOption = Annotated[bool, typer.Option("--plan", help="Only show what would run, why, and what it costs.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait while another process uses the workspace.")]
SettingsArgument = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)]
ArtifactArgument = Annotated[str, typer.Argument(help="Path, RUN/STAGE or the name of a model.")]


class _Modules(Mapping[str, Any]):
    """The stage modules by kind, each imported when it is asked for."""

    def __getitem__(self, kind: str) -> Any:
        return importlib.import_module(STAGES[kind])

    def __iter__(self) -> Iterator[str]:
        return iter(STAGES)

    def __len__(self) -> int:
        return len(STAGES)


def main() -> None:
    """The console script. A MaturaError is one message and exit 1; MATURA_DEBUG=1 shows the traceback."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            app(prog_name="matura")
    except MaturaError as error:
        if os.environ.get("MATURA_DEBUG", "0") not in ("", "0"):
            raise
        print(f"matura: {error}", file=sys.stderr)
        raise SystemExit(1) from None


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: TextIO | None = None,
    line: str | None = None,
) -> None:
    """A warning as one message for a person."""
    print(f"matura: {message}", file=sys.stderr, flush=True)


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"matura {matura.__version__}")
        raise typer.Exit


@app.command("run")
def run_recipe(
    recipe: Annotated[Path, typer.Argument(help="The YAML file.", show_default=False)],
    overrides: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[STAGE.KEY=VALUE]...",
            help="Other settings than the recipe's; size=NAME takes another of its sizes.",
            show_default=False,
        ),
    ] = None,
    plan: PlanOption = False,
    audit: Annotated[
        str | None,
        typer.Option(
            "--audit", metavar="STAGE", help="Only show what this stage would train, token by token."
        ),
    ] = None,
    name: Annotated[str | None, typer.Option(help="Name of the run (default: the recipe's).")] = None,
    wait: WaitOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Run a recipe: finished stages are reused, changed ones and what depends on them run again."""
    from matura.commands import auditing, reporting, running
    from matura.core import recipe as recipes

    if audit is not None:
        overrides, rows = auditing.rows_in(overrides or [])
    checked = recipes.load(recipe.expanduser(), _Modules(), overrides or (), name)
    place = use_workspace(workspace)
    if audit is not None:
        auditing.audit(checked, audit, rows, place, wait=wait)
        return
    if plan:
        running.show_plan(checked, place)
        return
    options = _options(workspace=workspace)
    again = ["matura", "run", str(recipe), *(overrides or ()), *_options(name=name), *options]
    running.execute(
        checked,
        place,
        wait=wait,
        keep_others=False,
        again=again,
        options=options,
        ended=lambda: reporting.refresh(checked.name, place),
    )


HelpOption = Annotated[bool, typer.Option("--help", "-h", help="Show the settings.")]
RunNameOption = Annotated[str, typer.Option("--name", help="Name of the run it belongs to.")]


def _stage_command(kind: str) -> Callable[..., None]:
    def stage(
        settings: SettingsArgument = None,
        plan: PlanOption = False,
        name: RunNameOption = "adhoc",
        wait: WaitOption = False,
        workspace: WorkspaceOption = None,
        show_help: HelpOption = False,
    ) -> None:
        if show_help:
            print(_stage_help(kind))
        else:
            _run_stage(kind, settings or [], plan, wait, workspace, name=name)

    return stage


def _audited(kind: str) -> Callable[..., None]:
    """The verb of a stage that can show what it would train."""

    def stage(
        settings: SettingsArgument = None,
        audit: Annotated[
            bool,
            typer.Option(
                "--audit",
                help="Only show what would be trained, token by token; a number says how many rows.",
            ),
        ] = False,
        plan: PlanOption = False,
        name: RunNameOption = "adhoc",
        wait: WaitOption = False,
        workspace: WorkspaceOption = None,
        show_help: HelpOption = False,
    ) -> None:
        if show_help:
            print(_stage_help(kind, " [--audit [ROWS]]"))
        elif audit:
            from matura.commands import auditing
            from matura.core import recipe as recipes

            given, rows = auditing.rows_in(settings or [])
            checked = recipes.single(kind, given, _Modules(), name)
            auditing.audit(checked, kind, rows, use_workspace(workspace), wait=wait)
        else:
            _run_stage(kind, settings or [], plan, wait, workspace, name=name)

    return stage


def export(
    settings: SettingsArgument = None,
    to: Annotated[
        Path | None, typer.Option("--to", help="Copy the files there: a folder, or a path ending in .gguf.")
    ] = None,
    plan: PlanOption = False,
    name: RunNameOption = "adhoc",
    wait: WaitOption = False,
    workspace: WorkspaceOption = None,
    show_help: HelpOption = False,
) -> None:
    if show_help:
        print(_stage_help("export", " [--to PLACE]"))
        return
    made = _run_stage("export", settings or [], plan, wait, workspace, name=name, to=to)
    if made and to:
        from matura.commands import running

        running.copy_export(made["export"], to)


_OWN: dict[str, Callable[..., None]] = {
    "finetune": _audited("finetune"),
    "dpo": _audited("dpo"),
    "export": export,
    "rank": ranking_verb.verb(lambda *given, **more: _run_stage(*given, **more), lambda: _stage_help("rank")),
}  # stages with options of their own
for _kind in STAGES:
    _command = _OWN[_kind] if _kind in _OWN else _stage_command(_kind)
    app.command(_kind, help=ABOUT[_kind], add_help_option=False)(_command)


def _run_stage(
    kind: str, settings: list[str], plan: bool, wait: bool, workspace: Path | None, **options: Any
) -> Any:
    """Run one stage and return what was made, by name; `options` are repeated in the command that goes on."""
    from matura.commands import running
    from matura.core import recipe as recipes

    checked = recipes.single(kind, settings, _Modules(), options["name"])
    place = use_workspace(workspace)
    if plan:
        running.show_plan(checked, place)
        return None
    common = _options(workspace=workspace)
    again = ["matura", kind, *settings, *_options(**options), *common]
    return running.execute(checked, place, wait=wait, keep_others=True, again=again, options=common)


def _stage_help(kind: str, more: str = "") -> str:
    from matura.core import config

    module = _Modules()[kind]
    about = (module.__doc__ or ABOUT[kind]).strip()
    return "\n".join(
        [
            f"Usage: matura {kind} [KEY=VALUE]... [--plan] [--name NAME] [--wait] [--workspace PATH]" + more,
            "",
            about,
            "",
            "Settings:",
            *config.describe(module.Config),
        ]
    )


@app.command()
def schema() -> None:
    """Print the JSON Schema of recipes, for editors."""
    from matura.core import recipe as recipes

    print(json.dumps(recipes.schema(_Modules()), indent=2))


@app.command()
def show(
    artifact: ArtifactArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole record.")] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Tell what an artifact is, how it was made, and its files."""
    from matura.core import lineage

    found = use_workspace(workspace).find(artifact)
    print(json.dumps(found.record, indent=2) if as_json else lineage.show(found))


@app.command("report")
def report_run(
    run: Annotated[str, typer.Argument(help="Name of a run of the workspace.")],
    to: Annotated[
        Path | None,
        typer.Option("--to", metavar="FILE", help="Write the page there (default: into the run's folder)."),
    ] = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Tell the story of a run as a page: data, training, exams, cost, lineage; also of one that is not finished."""
    from matura.commands import reporting

    reporting.report(run, to, use_workspace(workspace))


@app.command()
def doctor(
    run: Annotated[
        str, typer.Argument(help="Path of a run, finished or not, RUN/STAGE or the name of a model.")
    ],
    workspace: WorkspaceOption = None,
) -> None:
    """Look through the metrics of a training run for what is known to go wrong; exit 1 when something does."""
    from matura.commands import examining

    if examining.show(run, use_workspace(workspace)):
        raise typer.Exit(1)


@app.command("lineage")
def show_lineage(
    artifact: ArtifactArgument,
    verify: Annotated[
        bool, typer.Option("--verify", help="Hash every file of it again; exit 1 when something was changed.")
    ] = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Draw what an artifact was made from, down to the raw files."""
    from matura.commands import tracing
    from matura.core import lineage

    found = use_workspace(workspace).find(artifact)
    if not verify:
        print(lineage.draw(lineage.tree(found)))
    elif not tracing.verify(found):
        raise typer.Exit(1)


@app.command()
def gc(
    remove: Annotated[
        bool, typer.Option("--remove", help="Remove it; without this it is only listed.")
    ] = False,
    models: Annotated[bool, typer.Option("--models", help="Also models that no run uses.")] = False,
    wait: WaitOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """List what no run needs any more, or remove it."""
    from matura.core import reclaim
    from matura.core.files import size_text

    place = use_workspace(workspace)
    with place.lock(wait):
        unused = reclaim.find_unused(place, models=models)
        for item in unused:
            print(f"{size_text(item.bytes):>8}  {os.path.relpath(item.path, place.root)}  ({item.why})")
        if remove:
            print(f"Freed {size_text(reclaim.remove_unused(place, unused))}.")
        elif unused:
            print(f"{size_text(sum(item.bytes for item in unused))} can go: matura gc --remove")
        else:
            print("Nothing can go: the latest runs need it all.")


@app.command()
def pull(model: ModelArgument, wait: WaitOption = False, workspace: WorkspaceOption = None) -> None:
    """Bring a model into the workspace."""
    from matura.commands import running

    place = use_workspace(workspace)
    with place.lock(wait):
        print(running.pull(model, place).path)


for _verb in verbs.VERBS:
    app.command()(_verb)


def _options(**options: Any) -> list[str]:
    """Options as they were given, to be typed again."""
    given = {name: value for name, value in options.items() if value is not None}
    return [part for name, value in given.items() for part in (f"--{name}", str(value))]
