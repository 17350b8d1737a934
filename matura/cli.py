"""The command line: a verb for each stage, and others. What a verb needs is imported when it runs."""

import importlib
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

import matura
from matura.core.errors import MaturaError

STAGES = {
    "curate": "matura.stages.curate",
    "synthesize": "matura.stages.synthesize",
    "finetune": "matura.stages.finetune",
    "merge": "matura.stages.merge",
    "evaluate": "matura.stages.evaluate",
}
ABOUT = {
    "curate": "Turn a folder of documents into a corpus.",
    "synthesize": "Let a model write text of its own, for replay.",
    "finetune": "Train a model on a corpus or on conversations.",
    "merge": "Fold an adapter into its base model.",
    "evaluate": "Examine a model against its parent.",
}

app = typer.Typer(
    help="Take a language model through its whole education: from raw text to an examined assistant.",
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)

WorkspaceOption = Annotated[
    Path | None,
    typer.Option("--workspace", help="Where all is kept (default: MATURA_WORKSPACE, else ./workspace)."),
]
PlanOption = Annotated[bool, typer.Option("--plan", help="Only show what would run, why, and what it costs.")]
WaitOption = Annotated[bool, typer.Option("--wait", help="Wait while another process uses the workspace.")]
SettingsArgument = Annotated[list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", show_default=False)]
ArtifactArgument = Annotated[str, typer.Argument(help="Path, RUN/STAGE or the name of a model.")]
ModelArgument = Annotated[str, typer.Argument(help="Path, name, RUN/STAGE, hf:..., pypi:... or an alias.")]


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
        app(prog_name="matura")
    except MaturaError as error:
        if os.environ.get("MATURA_DEBUG", "0") not in ("", "0"):
            raise
        print(f"matura: {error}", file=sys.stderr)
        raise SystemExit(1) from None


@app.callback(invoke_without_command=True)
def _top(version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False) -> None:
    if version:
        print(f"matura {matura.__version__}")
        raise typer.Exit


@app.command("run")
def run_recipe(
    recipe: Annotated[Path, typer.Argument(help="The YAML file.", show_default=False)],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[STAGE.KEY=VALUE]...", show_default=False)
    ] = None,
    plan: PlanOption = False,
    name: Annotated[str | None, typer.Option(help="Name of the run (default: the recipe's).")] = None,
    wait: WaitOption = False,
    workspace: WorkspaceOption = None,
) -> None:
    """Run a recipe: finished stages are reused, changed ones and what depends on them run again."""
    from matura.commands import running
    from matura.core import recipe as recipes

    checked = recipes.load(recipe.expanduser(), _Modules(), overrides or (), name)
    place = _workspace(workspace)
    if plan:
        running.show_plan(checked, place)
        return
    options = _options(workspace=workspace)
    again = ["matura", "run", str(recipe), *(overrides or ()), *_options(name=name), *options]
    running.execute(checked, place, wait=wait, keep_others=False, again=again, options=options)


def _stage_command(kind: str) -> Callable[..., None]:
    def stage(
        settings: SettingsArgument = None,
        plan: PlanOption = False,
        name: Annotated[str, typer.Option(help="Name of the run it belongs to.")] = "adhoc",
        wait: WaitOption = False,
        workspace: WorkspaceOption = None,
        show_help: Annotated[bool, typer.Option("--help", "-h", help="Show the settings.")] = False,
    ) -> None:
        if show_help:
            print(_stage_help(kind))
            return
        from matura.commands import running
        from matura.core import recipe as recipes

        checked = recipes.single(kind, settings or (), _Modules(), name)
        place = _workspace(workspace)
        if plan:
            running.show_plan(checked, place)
            return
        options = _options(workspace=workspace)
        again = ["matura", kind, *(settings or ()), *_options(name=name), *options]
        running.execute(checked, place, wait=wait, keep_others=True, again=again, options=options)

    return stage


for _kind in STAGES:
    app.command(_kind, help=ABOUT[_kind], add_help_option=False)(_stage_command(_kind))


def _stage_help(kind: str) -> str:
    from matura.core import config

    module = _Modules()[kind]
    about = (module.__doc__ or ABOUT[kind]).strip()
    return "\n".join(
        [
            f"Usage: matura {kind} [KEY=VALUE]... [--plan] [--name NAME] [--wait] [--workspace PATH]",
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

    found = _workspace(workspace).find(artifact)
    print(json.dumps(found.record, indent=2) if as_json else lineage.show(found))


@app.command("lineage")
def show_lineage(artifact: ArtifactArgument, workspace: WorkspaceOption = None) -> None:
    """Draw what an artifact was made from, down to the raw files."""
    from matura.core import lineage

    print(lineage.draw(lineage.tree(_workspace(workspace).find(artifact))))


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

    place = _workspace(workspace)
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

    place = _workspace(workspace)
    with place.lock(wait):
        print(running.pull(model, place).path)


Sampling = dict[str, Any]
MaxNewTokens = Annotated[int | None, typer.Option(min=1, help="Stop after this many tokens.")]
Temperature = Annotated[float | None, typer.Option(min=0, help="0 takes the likeliest token each time.")]
TopK = Annotated[int | None, typer.Option(min=0, help="Sample among the k likeliest tokens; 0 is off.")]
TopP = Annotated[float | None, typer.Option(min=0, max=1, help="Sample among the likeliest that make up p.")]
MinP = Annotated[float | None, typer.Option(min=0, max=1, help="Drop what is less likely than p x the best.")]
Penalty = Annotated[float | None, typer.Option(min=0, help="Above 1 makes repeating less likely.")]
Seed = Annotated[int | None, typer.Option(help="The same seed gives the same text.")]
Stop = Annotated[list[str] | None, typer.Option(help="Stop before this text; may be given several times.")]


@app.command()
def generate(
    model: ModelArgument,
    prompt: Annotated[str, typer.Argument(help='The text to go on from; "-" reads it from stdin.')],
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: Penalty = None,
    seed: Seed = None,
    stop: Stop = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Continue a text. What is not given comes from the model's own defaults."""
    given = _given(locals(), "model", "prompt", "workspace")
    from matura.commands import talking

    _workspace(workspace)
    talking.generate(model, prompt, given)


@app.command()
def chat(
    model: ModelArgument,
    system: Annotated[str | None, typer.Option(help="A system message to open with.")] = None,
    max_new_tokens: MaxNewTokens = None,
    temperature: Temperature = None,
    top_k: TopK = None,
    top_p: TopP = None,
    min_p: MinP = None,
    repetition_penalty: Penalty = None,
    seed: Seed = None,
    stop: Stop = None,
    workspace: WorkspaceOption = None,
) -> None:
    """Talk with a model in the terminal. What is not given comes from the model's own defaults."""
    given = _given(locals(), "model", "system", "workspace")
    from matura.commands import talking

    _workspace(workspace)
    talking.chat(model, system, given)


def _given(values: Mapping[str, Any], *others: str) -> Sampling:
    """The sampling options that were given on the command line."""
    return {name: value for name, value in values.items() if name not in others and value not in (None, [])}


def _options(**options: Any) -> list[str]:
    """Options as they were given, to be typed again."""
    given = {name: value for name, value in options.items() if value is not None}
    return [part for name, value in given.items() for part in (f"--{name}", str(value))]


def _workspace(root: Path | None) -> Any:
    """The workspace to use; a stage that asks for it by itself gets the same one."""
    from matura.core.workspace import Workspace

    if root is not None:
        os.environ["MATURA_WORKSPACE"] = str(root.expanduser().absolute())
    return Workspace()
