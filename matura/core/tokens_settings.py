"""Settings of the stages from a corpus to tokens."""

from typing import Annotated

from pydantic import Field

from matura.core.config import Config, Input


class Corpus(Config):
    """One of several corpora."""

    path: Annotated[str, Input("corpus")] = Field(description="A corpus that `curate` made")
