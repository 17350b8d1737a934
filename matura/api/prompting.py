"""Prompts in Python: what `matura prompt` made, or a prompt.yaml, ready to be put around a question."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from matura.core import promptfile
from matura.core.errors import ConfigError

if TYPE_CHECKING:
    from matura.tokenizer.prompt import Prompt


def load_prompt(reference: str | os.PathLike[str] | Prompt) -> Prompt:
    """A prompt by its path (prompt.yaml, a folder with one, an artifact) or its RUN/STAGE in the workspace.

    `.around(messages)` gives the messages a model gets, `.plain(text)` a plain text to go on from. Raises ConfigError
    or FormatError for files that are no prompt, ModelNotFound for a name that there is not.
    """
    from matura.core.workspace import Workspace
    from matura.tokenizer.prompt import Prompt, read

    if isinstance(reference, Prompt):
        return reference
    path = Path(reference).expanduser()
    if path.suffix in promptfile.SUFFIXES or (path / promptfile.FILE).is_file():
        return read(path, promptfile.raw_input(path).id)
    found = Workspace().find(str(reference))
    if found.kind != "prompt":
        raise ConfigError(f"{reference}: expected a prompt, but it is a {found.kind} ({found.path})")
    return read(found)
