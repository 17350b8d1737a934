"""Settings of the stages from a corpus to tokens."""

from typing import Annotated, Literal

from pydantic import Field

from matura.core.config import Config, Input


class Corpus(Config):
    """One of several corpora."""

    path: Annotated[str, Input("corpus")] = Field(description="A corpus that `curate` made")


class Chat(Config):
    """How a decoder writes conversations."""

    format: Literal["chatml", "own", "none"] = Field(
        "chatml", description="ChatML, a template of your own, or none (encoders never have one)"
    )
    template: Annotated[str | None, Input("raw")] = Field(
        None, description="format=own: a file with a Jinja template as Hugging Face models have"
    )
    stop: tuple[str, ...] = Field(
        (), description="format=own: special tokens that end an answer; name them in `special_tokens` too"
    )
