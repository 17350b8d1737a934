"""Matura: take a language model through its whole education, from raw text to an examined assistant."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load", "load_prompt", "pipeline"]

if TYPE_CHECKING:
    from matura.api import load, load_prompt, pipeline


def __getattr__(name: str) -> Any:
    """`matura.load`, `matura.load_prompt` and `matura.pipeline` are imported when they are first used: `import matura`
    alone loads nothing heavy."""
    if name in ("load", "load_prompt", "pipeline"):
        from matura import api

        return getattr(api, name)
    raise AttributeError(f"module 'matura' has no attribute {name!r}")
