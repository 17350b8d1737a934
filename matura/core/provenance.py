"""Which code, on which machine: what an artifact records so that its making can be repeated."""

import functools
import os
import sys
from pathlib import Path
from typing import Any

import matura

# The packages whose version can change a result.
PACKAGES = (
    "numpy",
    "tokenizers",
    "safetensors",
    "gguf",
    "jinja2",
    "pydantic",
    "pyarrow",
    "pypdf",
    "resiliparse",
    "phonenumbers",
    "python-stdnum",
)


@functools.cache
def code_version() -> dict[str, Any]:
    """`version` of the package; `commit` and `dirty` when it runs from a git checkout, else None."""
    package = Path(matura.__file__).resolve().parent
    # A virtual environment may lie inside somebody else's repository: only a tracked file makes it ours.
    tracked = _git(package, "ls-files", "--error-unmatch", "__init__.py")
    commit = _git(package, "rev-parse", "HEAD") if tracked is not None else None
    changes = _git(package, "status", "--porcelain", "--", ".") if commit else None
    dirty = None if changes is None else bool(changes)
    return {"version": matura.__version__, "commit": commit, "dirty": dirty}


def _git(directory: Path, *arguments: str) -> str | None:
    import subprocess

    try:
        result = subprocess.run(
            ["git", "-C", str(directory), *arguments],
            capture_output=True,
            text=True,
            timeout=10,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return None
    return result.stdout.strip() if result.returncode == 0 else None


def environment() -> dict[str, Any]:
    """Python, platform, processor, thread count and package versions. Never imports torch: reads its
    metadata.
    """
    import platform

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu": cpu_model(),
        "torch": _package_version("torch"),
        "threads": threads(),
        "packages": {name: version for name in PACKAGES if (version := _package_version(name)) is not None},
    }


def threads() -> int:
    """The number of threads torch computes with, or would (bit-equal results need the same number)."""
    torch = sys.modules.get("torch")
    if torch is not None and hasattr(torch, "get_num_threads"):
        return int(torch.get_num_threads())
    asked = os.environ.get("OMP_NUM_THREADS", "")
    if asked.isdecimal() and int(asked) > 0:
        return int(asked)
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@functools.cache
def cpu_model() -> str:
    """The processor's name as the system tells it."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
            for line in file:
                name, _, value = line.partition(":")
                if name.strip() == "model name":
                    return value.strip()
    except OSError:
        pass
    import platform

    return platform.processor() or platform.machine()


@functools.cache
def _package_version(name: str) -> str | None:
    import importlib.metadata

    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
