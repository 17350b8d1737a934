"""Matura: take a language model through its whole education, from raw text to an examined assistant."""

from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"
__all__ = ["__version__", "load"]

if TYPE_CHECKING:
    from matura.api import load


def __getattr__(name: str) -> Any:
    """`matura.load` is imported when it is first used: `import matura` alone loads nothing heavy."""
    if name == "load":
        from matura.api import load

        return load
    raise AttributeError(f"module 'matura' has no attribute {name!r}")
