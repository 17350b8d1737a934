"""Reward functions of a user's own: Python files, which run with the user's rights."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from pathlib import Path

from matura.align.rewards.completion import Reward
from matura.core.config import did_you_mean
from matura.core.errors import ConfigError


def load(file: Path, function: str, where: str) -> Reward:
    """The function of this name. Raises ConfigError, naming the setting `where`, for a file that cannot be run or does
    not have it."""
    name = f"matura_own_reward_{hashlib.blake2b(str(file).encode(), digest_size=6).hexdigest()}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None or not file.is_file():
        raise ConfigError(f"{where}.file: {file} is no Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses of the file look themselves up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ConfigError(f"{where}.file: {file} cannot be run: {type(error).__name__}: {error}") from error
    found = getattr(module, function, None)
    if not callable(found):
        functions = [name for name, one in vars(module).items() if callable(one) and not name.startswith("_")]
        raise ConfigError(
            f"{where}.function: {file} has no function {function!r}{did_you_mean(function, functions)}"
        )
    made: Reward = found
    return made
