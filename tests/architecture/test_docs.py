"""What README and docs say is so: layout, commands, settings, links, make targets. Nothing heavy is run."""

import ast
import functools
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from benchmarks.record import RESULTS
from matura import cli
from matura.commands import auditing, ranking_verb
from matura.core import promptfile, references
from matura.core import recipe as recipes
from matura.evaluate import spec
from tests.architecture import settings_tables, task_table

ROOT = Path(__file__).parents[2]
PAGES = settings_tables.pages()
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
MADE = {"build", "dist", "workspace"}  # what runs and builds leave behind
TEXT = {".py", ".md", ".toml", ".txt", ".yaml", ".yml", ".html", ".json", ".jsonl", ".sh", ".cfg", ""}


def blocks(page: Path, *languages: str) -> list[str]:
    return [body for language, body in FENCE.findall(page.read_text("utf-8")) if language in languages]


def without_blocks(page: Path) -> str:
    return FENCE.sub("", page.read_text("utf-8"))


def commands(page: Path) -> Iterator[str]:
    """Every `matura ...` that a page tells to type, also under torchrun and over several lines."""
    for body in blocks(page, "sh", "console"):
        for line in re.sub(r"\\\n\s*", "", body).splitlines():
            typed = line.strip().removeprefix("$ ").removeprefix(".venv/bin/")
            if typed.startswith("torchrun "):
                typed = typed.partition(" -m ")[2]
            if typed.startswith("matura "):
                yield typed
    yield from re.findall(r"`(?:\.venv/bin/)?(matura [^`]+)`", without_blocks(page))


def recipe_commands() -> Iterator[str]:
    """What the comments of the recipes tell to type."""
    for path in sorted((ROOT / "recipes").glob("*.yaml")):
        for line in path.read_text("utf-8").splitlines():
            if match := re.match(r"#\s+(matura .*?)(\s{2,}|$)", line):
                yield match[1]


def words(command: str) -> list[str]:
    """The arguments after `matura`, without comments, pipes and redirections."""
    found = shlex.split(command, comments=True)[1:]
    ends = [i for i, word in enumerate(found) if word in ("|", ">", "<", "&&", ";")]
    return found[: ends[0]] if ends else found


ALL_COMMANDS = sorted({c for page in PAGES for c in commands(page)} | set(recipe_commands()))


@functools.cache
def program() -> Any:
    return typer.main.get_command(cli.app)


def test_there_are_commands_to_check() -> None:
    assert len(ALL_COMMANDS) > 30


@pytest.mark.parametrize("command", ALL_COMMANDS)
def test_command_can_be_typed(command: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT)
    monkeypatch.setenv("MATURA_WORKSPACE", str(tmp_path / "workspace"))
    verb, *arguments = words(command)
    if verb in ("-h", "--help", "--version"):
        return
    assert verb in program().commands, f"{command}: there is no command {verb}"
    given = [word for word in arguments if "..." not in word]
    if "--help" in given or not given:
        return
    chosen = program().commands[verb]
    while given and hasattr(chosen, "commands"):
        name, *given = given
        assert name in chosen.commands, f"{command}: {verb} has no command {name}"
        chosen = chosen.commands[name]
    if not given:
        return
    values = chosen.make_context(verb, list(given)).params
    placeholders = any(re.search(r"\b[A-Z]{3,}\b", word.partition("=")[0]) for word in given)
    if placeholders:
        return
    if verb == "run":
        recipes.load(Path(values["recipe"]), cli._Modules(), values["overrides"] or (), values["name"])
    elif verb == "rank":  # a person's, unless there is nothing but settings
        if ranking_verb.is_setting(values["words"][0]):
            recipes.single(verb, values["words"], cli._Modules(), values["name"])
    elif verb in cli.STAGES and values["settings"]:
        settings = auditing.rows_in(values["settings"])[0] if values.get("audit") else values["settings"]
        recipes.single(verb, settings, cli._Modules(), values["name"])
    elif values.get("model"):
        references.parse(values["model"])
    assert not (tmp_path / "workspace").exists()


def test_unknown_options_and_settings_are_found() -> None:
    with pytest.raises(Exception, match="No such option"):
        program().commands["chat"].make_context("chat", ["thing", "--temprature", "1"])
    with pytest.raises(Exception, match="did you mean 'heldout'"):
        recipes.single("curate", ["path=x", "heldot=3"], cli._Modules())


def test_readme_names_every_command() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    missing = [name for name in program().commands if f"matura {name}" not in text]
    assert not missing


def test_benchmarks_of_the_pages_exist(monkeypatch: pytest.MonkeyPatch) -> None:
    from benchmarks import __main__ as benchmarks

    lines = [line for page in PAGES for body in blocks(page, "sh") for line in body.splitlines()]
    lines += [text for page in PAGES for text in re.findall(r"`([^`]+)`", without_blocks(page))]
    typed = [line.partition("-m benchmarks")[2] for line in lines if "python -m benchmarks" in line]
    assert typed
    for arguments in typed:
        monkeypatch.setattr("sys.argv", ["benchmarks", *shlex.split(arguments, comments=True)])
        benchmarks._arguments()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_recipes_specifications_and_prompts_in_pages_are_valid(page: Path, tmp_path: Path) -> None:
    for body in blocks(page, "yaml"):
        path = tmp_path / "page.yaml"
        path.write_text(body, "utf-8")
        if re.search("^stages:", body, re.MULTILINE):
            recipes.load(path, cli._Modules())
        elif re.search("^kind:", body, re.MULTILINE):
            spec.read(path)
        else:
            promptfile.read(path)


def test_the_table_of_tasks_is_written_from_their_specifications() -> None:
    text = task_table.PAGE.read_text("utf-8")
    assert "| `piqa` |" in text
    assert text == task_table.filled(text), "run: python -m tests.architecture.task_table"


def test_modules_that_pages_tell_to_run_exist() -> None:
    typed = {
        name
        for page in PAGES
        for body in blocks(page, "sh", "console")
        for name in re.findall(r"python -m ([\w.]+)", body)
    }
    assert "tests.core.test_gguf_fuzz" in typed
    assert [name for name in sorted(typed) if importlib.util.find_spec(name) is None] == []


def test_python_in_pages_imports_what_exists() -> None:
    seen = 0
    for page in PAGES:
        for body in blocks(page, "python"):
            for node in ast.walk(ast.parse(body)):
                if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("matura"):
                    if node.module == "matura.evaluate.lm_eval_model":  # needs an extra
                        continue
                    module = importlib.import_module(node.module or "")
                    for one in node.names:
                        found = hasattr(module, one.name) or importlib.util.find_spec(
                            f"{node.module}.{one.name}"
                        )
                        assert found, f"{page}: {node.module} has no {one.name}"
                        seen += 1
    assert seen > 10


def test_python_in_pages_uses_what_exists() -> None:
    from matura import api
    from matura.infer import engine

    seen = 0
    assert engine.generate  # named in docs/chat.md
    for page in PAGES:
        for body in blocks(page, "python"):
            for node in ast.walk(ast.parse(body)):
                if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                    owner = {"model": api.LanguageModel, "matura": api}.get(node.value.id)
                    assert owner is None or hasattr(owner, node.attr), f"{page}: {node.value.id}.{node.attr}"
                    seen += owner is not None
    assert seen


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_tables_of_settings_equal_the_code(page: Path) -> None:
    text = page.read_text("utf-8")
    assert text == settings_tables.filled(text), "run: python -m tests.architecture.settings_tables"


def test_every_stage_has_a_page_with_its_settings() -> None:
    stages = {path.stem for path in (ROOT / "matura" / "stages").glob("[a-z]*.py")}
    assert stages == {path.stem for path in (ROOT / "docs" / "stages").glob("*.md")}
    for stage in stages:
        text = (ROOT / "docs" / "stages" / f"{stage}.md").read_text("utf-8")
        assert f"<!-- settings matura.stages.{stage}:Config -->" in text


def slug(heading: str) -> str:
    """A heading's anchor as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", without_blocks(page)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / urllib.parse.unquote(name)).resolve() if name else page
        assert place.exists(), f"{page.name}: {target} leads nowhere"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text("utf-8"), re.MULTILINE)
            assert anchor in map(slug, headings), f"{page.name}: {target} has no such heading"


def test_every_page_is_led_to() -> None:
    led = {
        (page.parent / urllib.parse.unquote(target.partition("#")[0])).resolve()
        for page in PAGES
        for target in re.findall(r"\]\(([^)\s#]+[^)\s]*)\)", without_blocks(page))
    }
    assert [page for page in (ROOT / "docs").rglob("*.md") if page.resolve() not in led] == []


def tree_in_readme() -> set[str]:
    """The folders of the layout, from the indentation of its lines."""
    text = (ROOT / "README.md").read_text("utf-8")
    body = text.partition("## Layout")[2].partition("```\n")[2].partition("```")[0]
    folders: set[str] = set()
    above: list[tuple[int, str]] = []
    for line in body.splitlines():
        indent, name = len(line) - len(line.lstrip()), line.split()[0]
        above = [one for one in above if one[0] < indent]
        folders.add("".join(parent for _, parent in above) + name)
        above.append((indent, name))
    return folders


def walk() -> Iterator[tuple[Path, list[str], list[str]]]:
    """The project's own folders and files, without what tools and runs leave behind."""
    for directory, names, files in os.walk(ROOT):
        names[:] = [n for n in names if (not n.startswith(".") or n == ".ci") and not n.endswith(".egg-info")]
        names[:] = [n for n in names if n != "__pycache__" and not (Path(directory) == ROOT and n in MADE)]
        if Path(directory) == RESULTS:  # finished runs of a benchmark, in a folder of its name
            names.clear()
        yield Path(directory), names, files


def test_layout_equals_the_disk() -> None:
    on_disk = {
        f"{(folder / name).relative_to(ROOT).as_posix()}/" for folder, names, _ in walk() for name in names
    }
    assert tree_in_readme() == on_disk


def test_no_file_names_a_machine() -> None:
    own = [place for place in (ROOT, Path.home()) if len(place.parts) > 2]  # "/app" alone means nothing
    names_of_own = [rf"{re.escape(str(place))}\b" for place in own]
    anywhere = [r"/(?:home|Users)/(?!me/|you/|somebody/)\w+/", r"/root/\w+"]
    machine = re.compile(rf"(?<![\w.*-])(?:{'|'.join([*names_of_own, *anywhere])})")
    problems = []
    for folder, _, files in walk():
        for path in (folder / name for name in files):
            if path.suffix in TEXT and path.stat().st_size < 4 << 20:
                text = path.read_text("utf-8", errors="replace")
                problems += [f"{path.relative_to(ROOT)}: {place}" for place in machine.findall(text)]
    assert not problems


@pytest.mark.skipif(shutil.which("make") is None, reason="needs make")
def test_make_targets_of_the_pages_exist() -> None:
    named = {"help"}
    for page in PAGES:
        typed = [line for body in blocks(page, "sh") for line in body.splitlines()]
        typed += re.findall(r"`([^`]+)`", without_blocks(page))
        for line in typed:
            if line.startswith("make "):
                found = shlex.split(line, comments=True)[1:]
                named |= {word for word in found if "=" not in word and not word.startswith("-")}
    assert {"demo", "test", "check", "bench", "setup"} <= named
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    for target in sorted(named | {"clean"}):
        done = subprocess.run(
            ["make", "-n", target], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60
        )
        assert done.returncode == 0, f"make {target}: {done.stderr}"
