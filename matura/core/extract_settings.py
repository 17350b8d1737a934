"""Settings of conversations that stand in documents already: where in them a question and its answer are found."""

from __future__ import annotations

import re
from typing import Annotated, Self

from pydantic import Field, field_validator, model_validator

from matura.core import patterns
from matura.core.config import Config, Input, did_you_mean

FIELD = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)\}")
"""What stands in `question` and `answer` for a group of a pattern."""


class Extract(Config):
    """Patterns of RE2 with named groups, and what becomes of the groups. What a group found loses the indentation that
    all its lines share, and white space around it."""

    documents: Annotated[str | None, Input("corpus")] = Field(
        None, description="A corpus; its held-out documents give the held-out conversations"
    )
    split: str = Field(
        "",
        description="Pattern at which a document is cut, each piece gives one conversation; empty: not at all",
    )
    text: str = Field("", description="Pattern with groups (?P<name>...), to be found in a piece")
    source: str = Field("", description="The same, to be found in the name of the document's file")
    question: str = Field("{question}", description="What the user says, with {name} for what a group found")
    answer: str = Field("{answer}", description="What the assistant says, in the same way")
    max_characters: int = Field(
        2000, ge=1, description="Conversations with a longer question or answer are dropped"
    )
    first: float = Field(
        0.0, ge=0, lt=1, description="Start of the share of the documents to learn from, by hash"
    )
    last: float = Field(1.0, gt=0, le=1, description="End of it: 0 to .7 and .7 to 1 share no document")

    @field_validator("split", "text", "source")
    @classmethod
    def _compiles(cls, pattern: str) -> str:
        return patterns.checked(pattern) if pattern else pattern

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.documents is None:
            if given := self.changed_besides("documents"):
                raise ValueError(f"`extract.{given[0]}` needs `extract.documents`, a corpus")
            return self
        if self.first >= self.last:
            raise ValueError(f"`first` ({self.first}) must be below `last` ({self.last})")
        found = [*patterns.groups(self.text), *patterns.groups(self.source)]
        if not patterns.groups(self.text):
            raise ValueError("`text` needs at least one group (?P<name>...): what is the answer?")
        if twice := next((name for name in found if found.count(name) > 1), None):
            raise ValueError(f"two groups are named {twice!r}")
        for setting in ("question", "answer"):
            fields = FIELD.findall(getattr(self, setting))
            if not fields:
                raise ValueError(f"`{setting}` holds no {{name}} of a group, so it would always be the same")
            for name in fields:
                if name not in found:
                    raise ValueError(f"`{setting}`: there is no group {name!r}{did_you_mean(name, found)}")
        return self
