"""The shape of the package: which part may import which, what stays light, and budgets of size.

Imports inside functions count too: a lazy import is still a dependency.
"""

import ast
import functools
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "matura"
FILES = sorted(PACKAGE.rglob("*.py"))
ROWS = {  # a part imports only from parts of a lower row, and from itself
    "core": 0,
    "data": 1,
    "tokenizer": 1,
    "model": 1,
    "train": 2,
    "infer": 2,
    "evaluate": 3,
    "align": 4,
    "inspect": 4,
    "serve": 4,
    "stages": 5,
    "api": 6,
    "commands": 7,
    "cli": 8,
    "__main__": 9,
    "": 9,  # matura/__init__.py
}
NO_TORCH = {"core", "data", "tokenizer", "commands", "cli", "__main__", ""}
FORBIDDEN_NAMES = {"util", "utils", "helper", "helpers", "common", "base", "manager", "managers", "misc"}
MAX_FILE_LINES = 400
MAX_FUNCTION_LINES = 80
HELP_SECONDS = 0.3


def module_name(path: Path) -> str:
    parts = list(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def part(module: str) -> str:
    """'matura.core.config' -> 'core'; '' for the package itself."""
    return module.split(".")[1] if "." in module else ""


def imports(nodes: Iterator[ast.AST], module: str, is_package: bool) -> Iterator[tuple[int, str]]:
    """(line, full name) of what is imported; `from a import b` gives a.b."""
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = module.split(".")
            base = base[: len(base) - node.level + is_package] if node.level else []
            origin = ".".join([*base, *([node.module] if node.module else [])])
            yield from ((node.lineno, f"{origin}.{alias.name}") for alias in node.names)
        elif isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "import_module":
            yield from ((node.lineno, str(a.value)) for a in node.args[:1] if isinstance(a, ast.Constant))


@functools.cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


@functools.cache
def all_imports(path: Path) -> list[tuple[int, str]]:
    tree = parsed(path)
    return list(imports(ast.walk(tree), module_name(path), path.name == "__init__.py"))


def wrong_direction(module: str, imported: str) -> bool:
    """Whether `module` may not import `imported` (both full names)."""
    ours = [name for name in imported.split(".") if name != "matura"]
    if imported.split(".")[0] != "matura" or not ours or ours[0].startswith("__"):
        return False
    here, there = part(module), ours[0]
    if here == there:
        return here == "stages" and ".".join(["matura", *ours[:2]]) != module
    return there not in ROWS or ROWS[there] >= ROWS[here]


@pytest.mark.parametrize(
    ("module", "imported", "wrong"),
    [
        ("matura.train.loop", "matura.model.transformer", False),
        ("matura.model.transformer", "matura.train.loop", True),
        ("matura.data.sources", "matura.tokenizer.conversation", True),
        ("matura.stages.curate", "matura.stages.finetune.run", True),
        ("matura.stages.curate", "matura.evaluate.gates", False),
        ("matura.core.artifact", "matura.__version__", False),
        ("matura.core.artifact", "matura.api", True),
        ("matura.cli", "matura.commands.running", False),
        ("matura.stages.curate", "matura.cli", True),
    ],
)
def test_the_rule_itself(module, imported, wrong):
    assert wrong_direction(module, imported) is wrong


def test_every_part_has_its_row():
    assert {part(module_name(path)) for path in FILES} <= ROWS.keys()


def test_imports_point_to_lower_rows_only():
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {imported}"
        for path in FILES
        for line, imported in all_imports(path)
        if wrong_direction(module_name(path), imported)
    ]
    assert not wrong, "\n".join(wrong)


def test_light_parts_import_no_torch_not_even_lazily():
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {imported}"
        for path in FILES
        if part(module_name(path)) in NO_TORCH
        for line, imported in all_imports(path)
        if imported.split(".")[0] == "torch"
    ]
    assert not wrong, "\n".join(wrong)


def test_only_two_modules_touch_torch_distributed():
    allowed = {PACKAGE / "train" / name for name in ("parallel.py", "parts.py")}
    wrong = [
        str(path.relative_to(PACKAGE))
        for path in FILES
        if path not in allowed and "torch.distributed" in path.read_text()
    ]
    assert not wrong


def test_a_stage_imports_only_core_at_its_top():
    allowed = {*sys.stdlib_module_names, "pydantic"}
    wrong = [
        f"{path.name}:{line} imports {imported}"
        for path in (PACKAGE / "stages").glob("*.py")
        for line, imported in imports(iter(parsed(path).body), module_name(path), False)
        if imported.split(".")[0] not in allowed and not imported.startswith("matura.core.")
    ]
    assert not wrong, "\n".join(wrong)


ADAPTERS = {"evaluate/lm_eval_model.py": "lm_eval"}
"""Modules that exist to be used by another project, which only they import; nothing here imports them."""


def test_references_are_never_imported():
    references = {"transformers", "peft", "trl", "lm_eval", "llama_cpp", "datatrove", "accelerate", "pickle"}
    wrong = [
        f"{path.relative_to(PACKAGE)}:{line} imports {imported}"
        for path in FILES
        for line, imported in all_imports(path)
        if imported.split(".")[0] in references
        and ADAPTERS.get(path.relative_to(PACKAGE).as_posix()) != imported.split(".")[0]
    ]
    assert not wrong, "\n".join(wrong)
    adapters = {f"matura.{name.removesuffix('.py').replace('/', '.')}" for name in ADAPTERS}
    assert not [path for path in FILES for _, imported in all_imports(path) if imported in adapters]


def test_no_file_has_a_name_that_says_nothing():
    names = [part for path in FILES for part in path.relative_to(PACKAGE).with_suffix("").parts]
    assert not FORBIDDEN_NAMES & set(names)
    assert not [name for name in names if re.search(r"(^|_)(utils?|helpers?|common)($|_)", name)]


def test_files_and_functions_stay_short():
    long = []
    for path in FILES:
        text = path.read_text()
        if len(text.splitlines()) > MAX_FILE_LINES:
            long.append(f"{path.relative_to(PACKAGE)}: {len(text.splitlines())} lines")
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                length = (node.end_lineno or node.lineno) - node.lineno + 1
                if length > MAX_FUNCTION_LINES:
                    long.append(f"{path.relative_to(PACKAGE)}:{node.lineno} {node.name}: {length} lines")
    assert not long, "\n".join(long)


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_import_matura_and_core_load_no_torch():
    light = [
        module_name(path) for path in FILES if part(module_name(path)) in {"core", "cli", "commands", ""}
    ]
    code = "import importlib, sys\n"
    code += f"[importlib.import_module(name) for name in {light!r}]\n"
    code += "print([name for name in ('torch', 'numpy', 'pyarrow', 'matplotlib') if name in sys.modules])"
    assert run_python(code) == "[]"


def test_stage_modules_load_no_torch():
    stages = [module_name(path) for path in FILES if part(module_name(path)) == "stages"]
    code = f"import importlib, sys\n[importlib.import_module(name) for name in {stages!r}]\n"
    assert run_python(code + "print('torch' in sys.modules)") == "False"


def test_help_is_quick_and_loads_no_heavy_module():
    code = (
        "import sys, runpy\nsys.argv = ['matura', '--help']\n"
        "try: runpy.run_module('matura', run_name='__main__')\nexcept SystemExit: pass\n"
        "print([n for n in ('torch', 'pydantic', 'rich', 'yaml', 'numpy') if n in sys.modules])"
    )
    assert run_python(code).endswith("[]")
    seconds = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "matura", "--help"], capture_output=True, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        # Processor time, which is the time on an idle machine and does not depend on what else runs.
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
        assert b"Usage: matura" in done.stdout
    assert statistics.median(seconds) < HELP_SECONDS, seconds
