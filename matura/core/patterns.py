"""Regular expressions from settings: those of RE2, whose time is linear in the text, so no text can stall a stage."""

from __future__ import annotations

import re


def checked(pattern: str) -> str:
    """The pattern itself. Raises ValueError, which says why, for one that RE2 does not take."""
    import pyarrow
    import pyarrow.compute

    try:
        pyarrow.compute.match_substring_regex(pyarrow.array([""]), pattern)
    except pyarrow.ArrowInvalid as error:
        raise ValueError(
            f"is no pattern of RE2 (which has no look-around and no back-references): {error}"
        ) from error
    return pattern


def groups(pattern: str) -> list[str]:
    """Names of the groups `(?P<name>...)` of a pattern, in their order."""
    return re.findall(r"\(\?P<([A-Za-z_][A-Za-z0-9_]*)>", pattern)
